"""The claim of TCNCA that a clock decides: convolutions against the Fourier recurrence over the length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..measure.characterize import slope
from ..ops.damped_average import PIECE
from ..spec import build
from .check import Measured, Progress, check

LENGTHS = tuple(2**n for n in range(10, 17))
DIM = 32


@check
def costs(seed: int, progress: Progress) -> Measured:
    """Forward times of both operators, 32 channels, 1,024 to 65,536 tokens; the convolutions reach 1,361 throughout."""
    kinds = {
        "convolutions": {"kind": "temporal_convolution", "width": 17, "factor": 4, "layers": 4},
        "average": {"kind": "damped_average", "dims": 16},
    }
    parts = {name: build("mixer", kind, DIM).eval() for name, kind in kinds.items()}
    times: dict[str, dict[int, float]] = {name: {} for name in parts}
    with torch.no_grad():
        for length in LENGTHS:
            x = torch.randn(1, length, DIM)
            for name, part in parts.items():
                progress(f"{name}, {length} tokens")
                times[name][length] = _seconds(part, x)
    slopes = {name: slope(list(row.items())) or 0.0 for name, row in times.items()}
    long = [length for length in LENGTHS if length >= 4096]
    ratios = [times["average"][length] / times["convolutions"][length] for length in long]
    linear = abs(slopes["convolutions"] - 1) < 0.2
    passed = linear and min(ratios) > 1
    said = f"slopes {slopes['convolutions']:.2f} and {slopes['average']:.2f}; from 4,096 tokens on the average takes "
    said += f"{min(ratios):.2f} to {max(ratios):.2f} times as long"
    note = f"The average's transform takes pieces of {PIECE:,} tokens, so that beyond them it is linear as well."
    if not linear:
        note += f" {_bend(list(times['convolutions'].items()))}"
    value = {
        "seconds": {name: {str(n): seconds for n, seconds in row.items()} for name, row in times.items()},
        "slopes": slopes,
        "ratios": {str(n): ratio for n, ratio in zip(long, ratios, strict=True)},
    }
    return Measured(value, passed, said, "operator up to 7.07x faster forward, at 131K, on a GPU", note)


def _seconds(part: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """The best of five forwards after one that warms up."""
    part(x)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        part(x)
        best = min(best, time.perf_counter() - start)
    return best


def _bend(row: list[tuple[int, float]]) -> str:
    """Where the convolutions' times (tokens, seconds) grow most from one length to the next, and how they grow else."""
    steps = [later / now for (_, now), (_, later) in pairwise(row)]
    at = steps.index(max(steps)) + 1
    sides = {"before": slope(row[:at]), "after": slope(row[at:])}
    rest = " and ".join(f"{value:.2f} {where}" for where, value in sides.items() if value is not None)
    return (
        f"The convolutions' time grows {max(steps):.1f}-fold from {row[at - 1][0]:,} to {row[at][0]:,} tokens; the "
        f"slope is {rest}. The clock does not tell what a cache no longer holds from other work on the machine."
    )
