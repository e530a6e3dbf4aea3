"""The claim of TCNCA that a clock decides: convolutions against the Fourier recurrence over the length."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

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
    times: dict[str, dict[str, float]] = {name: {} for name in parts}
    with torch.no_grad():
        for length in LENGTHS:
            x = torch.randn(1, length, DIM)
            for name, part in parts.items():
                progress(f"{name}, {length} tokens")
                times[name][str(length)] = _seconds(part, x)
    slopes = {name: _slope(row) for name, row in times.items()}
    long = [str(length) for length in LENGTHS if length >= 4096]
    ratios = [times["average"][length] / times["convolutions"][length] for length in long]
    linear = abs(slopes["convolutions"] - 1) < 0.2
    passed = linear and min(ratios) > 1
    said = f"slopes {slopes['convolutions']:.2f} and {slopes['average']:.2f}; from 4,096 tokens on the average takes "
    said += f"{min(ratios):.2f} to {max(ratios):.2f} times as long"
    note = "The average's transform goes piece by piece from 4,096 tokens on, so it is linear there as well."
    if not linear:
        row = list(times["convolutions"].items())
        jumps = {n: later / now for (n, now), (_, later) in pairwise(row)}
        at = max(jumps, key=lambda n: jumps[n])
        note += f" The convolutions' time grows {jumps[at]:.0f}-fold from {at} to twice as many tokens, where buffers "
        note += "outgrow what the allocator keeps; on a machine with other work the clock says little."
    value = {"seconds": times, "slopes": slopes, "ratios": dict(zip(long, ratios, strict=True))}
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


def _slope(row: dict[str, float]) -> float:
    """Of log time over log length, by least squares."""
    lengths = torch.tensor([math.log(float(length)) for length in row])
    seconds = torch.tensor([math.log(value) for value in row.values()])
    centred = lengths - lengths.mean()
    return float((centred * (seconds - seconds.mean())).sum() / centred.square().sum())
