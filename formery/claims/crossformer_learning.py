"""The claim of CrossFormer that needs trainings: what tokens of several scales are good for."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ..data.arrays import ArrayData
from ..data.drawn import TEXTURES, textures
from ..measure import count_parameters
from ..measure.inputs import as_model
from .check import Measured, Progress, check, silent
from .trials import in_words, trained

SEEDS = 3
SCALES = {"4": [4], "4, 8 and 16": [4, 8, 16]}


@check
def scales(seed: int, progress: Progress) -> Measured:
    """One block of window attention on tokens of one scale, and of three, for textures of 32 x 32 pixels.

    A fifth of the images is for training.
    """
    images, labels = textures(200)
    found: dict[str, list[float]] = {}
    params = {}
    for name, sizes in SCALES.items():
        spec = _spec(sizes)
        params[name] = count_parameters(as_model(spec)).total
        for offset in range(SEEDS):
            progress(f"kernels of {name}, seed {seed + offset}")
            data = ArrayData(
                images, labels, TEXTURES, name="textures", layout="NHWC", shifts=0, splits=(0.2, 0.1, 0.7),
                seed=seed + offset,
            )  # fmt: skip
            trial = trained(spec, data, steps=80, seed=seed + offset, progress=silent)
            found.setdefault(name, []).append(trial.accuracy)
    one, several = SCALES
    better, smaller = mean(found[several]) > mean(found[one]), params[one] < params[several]
    note = "80 steps on drawn pictures with periods of 4 to 8 pixels, which small kernels and attention see as well."
    said = f"{in_words(found)}; parameters {params[one]:,} and {params[several]:,}"
    value = {"accuracy": found, "params": params}
    return Measured(value, better and smaller, said, note="" if better and smaller else note)


def _spec(sizes: list[int]) -> dict[str, Any]:
    mixer = {"kind": "window_attention", "window": 4, "heads": 2, "position": "offset_mlp"}
    return {
        "stem": {"kind": "cross_scale", "dim": 32, "sizes": sizes},
        "body": {"kind": "stack", "depth": 1, "mixer": mixer, "channel": {"kind": "mlp", "ratio": 2.0}},
        "head": "classes",
    }
