"""The claim of Next-ViT that needs trainings: where transformer blocks should stand."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ..data.drawn import relations_data
from ..systems.vision.nextvit import convolution_block
from .check import Measured, Progress, check, silent
from .trials import CHANCE, in_words, trained

SEEDS = 2
STEPS = 100
DIM = 32
HYBRID = ("ct", "ct")
LAST = ("cc", "tt")
"""Blocks of two stages: c convolution, t attention (and convolution beside it)."""


@check
def hybrid_strategy(seed: int, progress: Progress) -> Measured:
    """A transformer block at the end of both stages against two in the last one, on relations between patches."""
    found: dict[str, list[float]] = {}
    for label, stages in (("at the end of each stage", HYBRID), ("in the last stage", LAST)):
        for offset in range(SEEDS):
            progress(f"{label}, seed {seed + offset}")
            data = relations_data(seed=seed + offset, num=4000)
            trial = trained(_spec(stages), data, steps=STEPS, seed=seed + offset, progress=silent)
            found.setdefault(label, []).append(trial.accuracy)
    passed = mean(found["at the end of each stage"]) > mean(found["in the last stage"])
    note = (
        "Both learn this small task whole: two blocks of attention in one stage see all of its map, as two in "
        "different stages do. The paper's gap is that of ImageNet at equal latency."
    )
    said = f"{in_words(found)} after {STEPS} steps; chance is {100 * CHANCE:.0f} %"
    return Measured(found, passed, said, note="" if passed else note)


def _spec(stages: tuple[str, ...]) -> dict[str, Any]:
    """Two stages of width 32, of blocks by letter. Patches and the merge do not overlap, so that blocks alone mix."""
    return {
        "stem": {"kind": "conv", "dim": DIM, "size": 4, "stride": 4, "padding": 0},
        "body": {
            "kind": "pyramid",
            "stages": [
                {"kind": "stack", "blocks": [_block(letter) for letter in letters], "dim_out": DIM}
                | ({"merge": {"kind": "pooling"}} if number else {})
                for number, letters in enumerate(stages)
            ],
        },
        "head": {"kind": "classes", "norm": "batch"},
    }


def _block(letter: str) -> dict[str, Any]:
    """A convolution block, or the same with attention, so that both kinds keep the width."""
    convolution = convolution_block()
    return convolution if letter == "c" else convolution | {"mixer": {"kind": "attention", "heads": 2}}
