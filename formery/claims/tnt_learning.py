"""Claims of TNT that need trainings: what words, and their positions, are good for."""

from __future__ import annotations

from functools import cache
from statistics import mean
from typing import Any

from torch import nn

from ..bodies.nested import Nested
from ..data.digits import digits
from ..model import Model
from .check import Measured, Progress, check, silent
from .trials import in_words, trained

SEEDS, STEPS = 2, 120


@check
def words_help(seed: int, progress: Progress) -> Measured:
    """The whole net against the one whose joins give nothing."""
    found = _both("joined", "patches alone", seed, progress)
    passed = mean(found["joined"]) > mean(found["patches alone"])
    note = "" if passed else "Digits of 8 x 8 pixels have little inside a patch that one dense layer does not see."
    return Measured(found, passed, in_words(found), "81.5 against 79.8 % of ImageNet (DeiT-S)", note)


@check
def word_positions_help(seed: int, progress: Progress) -> Measured:
    """The whole net against the one whose words have no positions."""
    found = _both("joined", "no positions", seed, progress)
    passed = mean(found["joined"]) >= mean(found["no positions"])
    note = "" if passed else "A convolution with zeros at the border of each patch tells words where they are."
    return Measured(found, passed, in_words(found), "81.5 against 80.7 % of ImageNet", note)


def _both(first: str, second: str, seed: int, progress: Progress) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name in (first, second):
        for offset in range(SEEDS):
            progress(f"{name}, seed {seed + offset}")
            found.setdefault(name, []).append(_accuracy(name, seed + offset))
    return found


@cache
def _accuracy(name: str, seed: int) -> float:
    """On the digits' test part, of a net of two blocks on four patches of sixteen words."""
    block = {"mixer": {"kind": "attention", "heads": 2, "bias": False}, "channel": {"kind": "mlp", "ratio": 2.0}}
    spec: dict[str, Any] = {
        "stem": {"kind": "pixel_words", "width": 4, "size": 4, "stride": 1, "kernel": 3},
        "body": {
            "kind": "nested",
            "depth": 2,
            "width": 32,
            "inner": block,
            "outer": block,
            "prefix": 1,
            "position": {"kind": "learned", "prefix": 1},
            "inner_position": None if name == "no positions" else "learned",
        },
        "head": {"kind": "classes", "pool": "token"},
    }
    data = digits(seed=seed)
    options: dict[str, Any] = {"steps": STEPS, "seed": seed, "progress": silent, "learning_rate": 3e-3}
    return trained(spec, data, change=silence if name == "patches alone" else None, **options).accuracy


def silence(model: Model) -> None:
    """Joins that add nothing, and learn nothing."""
    assert isinstance(model.body, Nested)
    for join in model.body.joins:
        norm = join.get_submodule("out_norm")
        for parameter in norm.parameters():
            nn.init.zeros_(parameter).requires_grad_(False)
