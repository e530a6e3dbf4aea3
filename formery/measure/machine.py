"""What this machine can do at best: products of matrices and reading memory.

A model's share of these rates says how well it uses the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..host import cores, processor, remember, remembered
from .report import Report, grid
from .running import using_threads

if TYPE_CHECKING:
    from rich.table import Table

SIZE = 2048
"""Rows, columns and depth of the measured product."""
STREAMED = 1 << 28
"""Bytes of the measured matrix-vector product's matrix: beyond any cache."""
SECONDS = 0.7
"""That each rate is measured for."""


@dataclass(frozen=True)
class Machine(Report):
    """The processor, and the best rates seen on it."""

    processor: str
    cores: int
    threads: int
    """That were used."""
    torch_version: str
    fp32: float
    """Multiply-accumulates a second of a float32 product of matrices, by the faster library."""
    fp32_by: dict[str, float]
    """The same by library: "oneDNN", and "MKL" (or whatever else BLAS torch was built with), which F.linear uses."""
    bf16: float
    """The same of a bfloat16 product."""
    bandwidth: float
    """Bytes a second read from memory by a matrix-vector product whose matrix fits no cache."""

    @property
    def libraries(self) -> str:
        """What each library reaches in float32."""
        return ", ".join(f"{name} {2 * rate / 1e9:.0f}" for name, rate in self.fp32_by.items())

    def rate(self, dtype: torch.dtype) -> float:
        """Multiply-accumulates a second at best in `dtype`."""
        return self.bf16 if dtype is torch.bfloat16 else self.fp32

    def table(self) -> Table:
        rows = [
            ("processor", f"{self.processor}, {self.cores} cores, {self.threads} thread(s)"),
            ("torch", self.torch_version),
            ("float32 products", f"{2 * self.fp32 / 1e9:.0f} GFLOP/s ({self.libraries})"),
            ("bfloat16 products", f"{2 * self.bf16 / 1e9:.0f} GFLOP/s"),
            ("memory", f"{self.bandwidth / 1e9:.1f} GB/s"),
        ]
        return grid("This machine", ("what", "figure"), rows)


def machine(threads: int | None = None, *, again: bool = False) -> Machine:
    """This machine's figures for `threads` (torch's present number unless given).

    Measured once in a few seconds and remembered (see `formery.host`). `again` measures anew, for a machine that
    was busy then.
    """
    with using_threads(threads) as used:
        return _measure_and_keep(used) if again else _known(used)


@cache
def _known(threads: int) -> Machine:
    kept = remembered("machine", threads)
    try:
        return Machine(**kept) if kept else _measure_and_keep(threads)
    except TypeError:  # written by another version
        return _measure_and_keep(threads)


def _measure_and_keep(threads: int) -> Machine:
    found = _measured(threads)
    remember("machine", threads, found.as_dict())
    return found


def _measured(threads: int) -> Machine:
    with torch.inference_mode():
        wide, tall = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
        candidates: dict[str, Callable[[], Any]] = {_blas(): lambda: F.linear(wide, tall)}
        if torch.backends.mkldnn.is_available():
            candidates["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(wide, tall, None, "none", [], "")
        fp32 = {name: SIZE**3 / _best(call) for name, call in candidates.items()}
        wide16, tall16 = wide.bfloat16(), tall.bfloat16()
        bf16 = SIZE**3 / _best(lambda: F.linear(wide16, tall16))
        matrix = torch.ones(STREAMED // 4 // SIZE, SIZE)
        vector = torch.ones(SIZE)
        reads: list[Callable[[], Any]] = [lambda: torch.mv(matrix, vector), matrix.max]
        if torch.backends.mkldnn.is_available():
            row = vector[None]
            reads.append(lambda: torch.ops.mkldnn._linear_pointwise(row, matrix, None, "none", [], ""))
        bandwidth = STREAMED / min(map(_best, reads))
    return Machine(processor(), cores(), threads, torch.__version__, max(fp32.values()), fp32, bf16, bandwidth)


def _best(call: Callable[[], Tensor]) -> float:
    """The shortest time of a call, after one that is not counted: the machine's best, not its average under load."""
    call()
    times: list[float] = []
    end = perf_counter() + SECONDS
    while len(times) < 3 or perf_counter() < end:
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)


def _blas() -> str:
    return "MKL" if torch.backends.mkl.is_available() else "BLAS"
