"""What this machine can do at best: products of matrices and reading memory.

A model's share of these rates says how well it uses the machine.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import BadFile, Unwritable
from ..files import read_json, write_json
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
    fp32_library: str
    """"oneDNN" or "MKL" (or whatever else BLAS torch was built with)."""
    bf16: float
    """The same of a bfloat16 product."""
    bandwidth: float
    """Bytes a second read from memory by a matrix-vector product whose matrix fits no cache."""

    def rate(self, dtype: torch.dtype) -> float:
        """Multiply-accumulates a second at best in `dtype`."""
        return self.bf16 if dtype is torch.bfloat16 else self.fp32

    def table(self) -> Table:
        rows = [
            ("processor", f"{self.processor}, {self.cores} cores, {self.threads} thread(s)"),
            ("torch", self.torch_version),
            ("float32 products", f"{2 * self.fp32 / 1e9:.0f} GFLOP/s ({self.fp32_library})"),
            ("bfloat16 products", f"{2 * self.bf16 / 1e9:.0f} GFLOP/s"),
            ("memory", f"{self.bandwidth / 1e9:.1f} GB/s"),
        ]
        return grid("This machine", ("what", "figure"), rows)


def machine(threads: int | None = None, *, again: bool = False) -> Machine:
    """This machine's figures for `threads` (torch's present number unless given).

    Measured once a process in a few seconds; remembered in `machine.json` in the folder FORMERY_CACHE (default
    ~/.cache/formery) by processor, torch and threads. `again` measures anew, for a machine that was busy then.
    """
    with using_threads(threads) as used:
        return _measure_and_keep(used) if again else _known(used)


@cache
def _known(threads: int) -> Machine:
    kept = _read().get(_key(threads))
    try:
        return Machine(**kept) if kept else _measure_and_keep(threads)
    except TypeError:  # written by another version
        return _measure_and_keep(threads)


def _measure_and_keep(threads: int) -> Machine:
    found = _measured(threads)
    try:
        write_json(_file(), {**_read(), _key(threads): found.as_dict()})
    except Unwritable:
        pass  # a read-only home costs a few seconds a process, nothing else
    return found


def _measured(threads: int) -> Machine:
    with torch.inference_mode():
        wide, tall = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
        candidates: dict[str, Callable[[], Any]] = {_blas(): lambda: F.linear(wide, tall)}
        if torch.backends.mkldnn.is_available():
            candidates["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(wide, tall, None, "none", [], "")
        fp32 = {name: SIZE**3 / _best(call) for name, call in candidates.items()}
        library = max(fp32, key=lambda name: fp32[name])
        wide16, tall16 = wide.bfloat16(), tall.bfloat16()
        bf16 = SIZE**3 / _best(lambda: F.linear(wide16, tall16))
        matrix = torch.ones(STREAMED // 4 // SIZE, SIZE)
        vector = torch.ones(SIZE)
        bandwidth = STREAMED / _best(lambda: torch.mv(matrix, vector))
    return Machine(
        processor(), os.cpu_count() or 1, threads, torch.__version__, fp32[library], library, bf16, bandwidth
    )


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


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _key(threads: int) -> str:
    return json.dumps([processor(), os.cpu_count(), torch.__version__, threads])


def _file() -> Path:
    return Path(os.environ.get("FORMERY_CACHE") or Path.home() / ".cache" / "formery") / "machine.json"


def _read() -> dict[str, Any]:
    try:
        kept = read_json(_file())
    except BadFile:
        return {}
    return kept if isinstance(kept, dict) else {}
