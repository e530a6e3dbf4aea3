"""Recorded outputs of published implementations ("goldens"), and the rules that remake their weights and inputs.

`goldens/NAME.json` says what was run: where the implementation comes from (`source`), how it was built (`build`) and
fed (`inputs`), the names and shapes of its tensors in order (`tensors`), its parameter count (`params`) and the shapes
of its outputs. `goldens/NAME.npz` holds what came out, in float32 and eval mode. Neither holds weights or code: a
tensor is filled by a rule of its published name and its shape, an input by a rule of its seed and shape.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).with_name("goldens")


def names() -> list[str]:
    """Every golden there is."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def facts(name: str) -> dict[str, Any]:
    """What was run to record golden `name`."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def fill_value(name: str, shape: Sequence[int]) -> np.ndarray:
    """The float32 value of the tensor published as `name`.

    Standard normal draws seeded by the CRC of the name: divided by the root of the fan-in where there are two axes or
    more, scattered by a tenth around 1 for vectors called weight and (upwards only) running variances, around 0 else.
    """
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if name.endswith("running_var"):
        return np.float32(1 + 0.1 * np.abs(draw))
    if len(shape) > 1:
        return np.float32(draw / math.sqrt(max(1, math.prod(shape[1:]))))
    return np.float32(float(name.endswith("weight")) + 0.1 * draw)


def state_from(tensors: Iterable[tuple[str, Sequence[int]]]) -> dict[str, Tensor]:
    """A checkpoint under published names: each of `tensors` (name, shape), filled by the rule."""
    return {name: torch.from_numpy(np.asarray(fill_value(name, shape))) for name, shape in tensors}


def normal(shape: Sequence[int], seed: int = 0) -> Tensor:
    """Standard normal float32 input."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(tuple(shape)).astype(np.float32))


def tokens(shape: Sequence[int], vocab: int, seed: int = 0) -> Tensor:
    """Uniform int64 token ids below `vocab`."""
    return torch.from_numpy(np.random.RandomState(seed).randint(0, vocab, size=tuple(shape)).astype(np.int64))


def recorded(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Each output of golden `name`: its `shape`, its first values (`head`), and `stats` (mean, std, largest, sum)."""
    outputs: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        for key in arrays.files:
            output, _, part = key.rpartition("/")
            outputs.setdefault(output, {})[part] = arrays[key]
    return outputs


def worst_error(name: str, outputs: Mapping[str, Tensor]) -> float:
    """The largest difference to golden `name` over all its outputs, in units of each output's largest absolute value.

    Compared are the recorded first values, and mean, deviation and largest value of the whole. Infinite where an output
    is not finite; KeyError where one was recorded and not given, ValueError where a shape differs.
    """
    worst = 0.0
    for key, golden in recorded(name).items():
        got = outputs[key].detach().cpu().double().numpy()
        if got.shape != tuple(golden["shape"]):
            raise ValueError(f"{name}: {key} has shape {got.shape}, recorded was {tuple(golden['shape'].tolist())}")
        if not np.isfinite(got).all():
            return math.inf
        head, stats = golden["head"], golden["stats"]
        scale = float(stats[2]) or 1.0
        summary = np.array([got.mean(), got.std(), np.abs(got).max()])
        differences = (np.abs(got.reshape(-1)[: head.size] - head), np.abs(summary - stats[:3]))
        worst = max(worst, *(float(difference.max()) / scale for difference in differences))
    return worst
