"""Claims of the Compact Transformers that need trainings, on digits resized to the 32 pixels of CIFAR."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..create import model_spec
from ..data.digits import digits
from .check import Measured, Progress, check, silent
from .trials import trained

STEPS = 160
"""Of 64 images: 8 passes over the training part."""
FAMILIES = {"CCT-2/3x2": "cct_2_3x2", "CVT-2/4": "cvt_2_4", "ViT-Lite-2/4": "vit_lite_2_4"}


@check
def small_suffices(seed: int, progress: Progress) -> Measured:
    """CCT-2/3x2 on the digits."""
    accuracy = learned("cct_2_3x2", True, seed)
    said = f"accuracy {100 * accuracy:.1f} % after {STEPS} steps; chance is 10 %"
    return Measured({"accuracy": accuracy}, accuracy >= 0.9, said)


@check
def order_on_little_data(seed: int, progress: Progress) -> Measured:
    """The three tokenizers and poolings with two layers each, at an equal number of steps."""
    found: dict[str, float] = {}
    for label, name in FAMILIES.items():
        progress(label)
        found[label] = learned(name, True, seed)
    cct, cvt, vit = found.values()
    note = ""
    if not cct >= cvt >= vit:
        note = "Two layers on digits: the three differ by less than another seed, or another rounding of sums, changes."
    return Measured(found, cct >= cvt >= vit, in_words(found), "CCT > CVT > ViT-Lite on CIFAR-10", note)


@check
def positions_matter_less(seed: int, progress: Progress) -> Measured:
    """What each loses without its position table."""
    found: dict[str, float] = {}
    for label, name in FAMILIES.items():
        progress(label)
        whole = learned(name, True, seed)
        progress(f"{label} without positions")
        found[label] = whole - learned(name, False, seed)
    passed = found["CCT-2/3x2"] < min(found["CVT-2/4"], found["ViT-Lite-2/4"])
    return Measured(found, passed, f"accuracy lost without positions: {in_words(found)}")


def in_words(found: dict[str, float]) -> str:
    """Percentages by name."""
    return "; ".join(f"{label} {100 * value:.1f} %" for label, value in found.items())


@cache
def learned(name: str, positions: bool, seed: int) -> float:
    """Test accuracy of a variant, with its position table or without any."""
    changes: dict[str, Any] = {} if positions else {"body.position": None}
    data = digits(seed=seed, image_size=32)
    trial = trained(
        model_spec(name, override=changes), data, steps=STEPS, seed=seed, progress=silent, batch_size=64,
        learning_rate=2e-3,
    )  # fmt: skip
    return trial.accuracy
