"""Claims of T2T-ViT that need trainings, on digits resized to 32 pixels."""

from __future__ import annotations

from statistics import mean
from typing import Any

import torch

from ..data.digits import digits
from ..measure import count_parameters
from ..model import Model
from .check import Measured, Progress, check, silent
from .trials import in_words, trained

SEEDS = 2
STEPS = 120
"""Of 64 images."""
SPLITS = [[7, 4, 2], [3, 2, 1]]
"""16 tokens of an image of 32 pixels."""


@check
def better_than_patches(seed: int, progress: Progress) -> Measured:
    """Two soft splits in front of three blocks against patches of 8 x 8 in front of four."""
    return _against(
        ("tokens to token", _spec(64, 3, SPLITS)), ("patches", _spec(64, 4, None)), seed, progress,
        "81.5 % of ImageNet (T2T-ViT-14) against 79.8 (DeiT-small)",
    )  # fmt: skip


@check
def deep_and_narrow(seed: int, progress: Progress) -> Measured:
    """Eight blocks of width 64 against two of width 128."""
    deep, shallow = _spec(64, 8, SPLITS), _spec(128, 2, SPLITS)
    return _against(("deep, narrow", deep), ("shallow, wide", shallow), seed, progress, "")


def _against(
    one: tuple[str, dict[str, Any]], other: tuple[str, dict[str, Any]], seed: int, progress: Progress, published: str
) -> Measured:
    """The mean test accuracy of one net against that of another, over the same seeds."""
    found: dict[str, list[float]] = {}
    sizes = {}
    for label, spec in (one, other):
        with torch.device("meta"):
            sizes[label] = count_parameters(Model(spec)).total
        for offset in range(SEEDS):
            progress(f"{label}, seed {seed + offset}")
            data = digits(seed=seed + offset, image_size=32)
            trial = trained(spec, data, steps=STEPS, seed=seed + offset, progress=silent, batch_size=64)
            found.setdefault(label, []).append(trial.accuracy)
    passed = mean(found[one[0]]) > mean(found[other[0]])
    note = "" if passed else f"{STEPS} steps on digits are a proxy for 300 epochs on ImageNet, and may reverse it."
    told = ", ".join(f"{label} {count:,}" for label, count in sizes.items())
    return Measured(
        {"accuracy": found, "params": sizes}, passed, f"{in_words(found)}; parameters {told}", published, note
    )


def _spec(dim: int, depth: int, splits: list[list[int]] | None) -> dict[str, Any]:
    """T2T-ViT's backbone on digits, behind soft splits or behind patches."""
    stem: dict[str, Any] = {"kind": "patches", "dim": dim, "size": 8, "img_size": 32}
    if splits is not None:
        stem = {"kind": "tokens_to_token", "dim": dim, "inner": 32, "features": 16, "splits": splits, "img_size": 32}
    return {
        "stem": stem | {"in_chans": 1},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": {"kind": "attention", "heads": dim // 32, "bias": False, "out_bias": True},
            "channel": {"kind": "mlp", "ratio": 2.0},
            "prefix": 1,
            "position": {"kind": "learned", "prefix": 1, "init": "sine", "frozen": True},
        },
        "head": {"kind": "classes", "pool": "token", "num_classes": 10},
    }
