"""How long a forward takes."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..errors import BadSpec
from .inputs import as_inputs
from .report import Report, grid, share
from .report import time as in_words
from .running import evaluating, synchronize, using_threads, without_collection

if TYPE_CHECKING:
    from rich.table import Table

Clock = Literal["wall", "cpu"]
"""What is read: the time that passes, or the time that this process' threads were at work. On one thread the second is
hardly touched by other processes; on several it counts each thread, waiting for each other included."""
SHORTEST = 2e-3
"""Seconds that a sample takes at least: shorter calls are made several times a sample."""


@dataclass(frozen=True)
class Timing(Report):
    """Seconds a call, over the samples of one measurement."""

    median: float
    lower: float
    """First quartile."""
    upper: float
    """Third quartile."""
    best: float
    runs: int
    """Samples taken, warm-up apart."""
    calls: int
    """Calls a sample."""
    threads: int
    clock: Clock
    load: float
    """Processes that wanted to run, averaged over the last minute, when the measurement ended."""

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a part of the median: near 0 on a quiet machine."""
        return (self.upper - self.lower) / self.median if self.median else 0.0

    def per_second(self, items: int) -> float:
        """Items a second where one call works on `items`."""
        return items / self.median

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"spread": self.spread}

    def table(self) -> Table:
        row = (*map(in_words, (self.median, self.lower, self.upper, self.best)), share(self.spread), str(self.runs))
        title = f"{self.clock} time on {self.threads} thread(s), load {self.load:.1f}"
        return grid(title, ("median", "quartile", "quartile", "best", "spread", "runs"), [row], texts=0)

    @classmethod
    def of(cls, samples: list[float], *, calls: int, threads: int, clock: Clock) -> Timing:
        """The figures of `samples` (seconds a call)."""
        lower, median, upper = quartiles(samples)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return cls(median, lower, upper, min(samples), len(samples), calls, threads, clock, load)


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, also of a single sample."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    lower, median, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return lower, median, upper


class Stopwatch:
    """Takes samples of one call: warmed up, each at least `SHORTEST` long."""

    def __init__(self, call: Callable[[], Any], *, clock: Clock = "wall", warmup: int = 2) -> None:
        if clock not in ("wall", "cpu"):
            raise BadSpec(f"clock is 'wall' or 'cpu', got {clock!r}")
        self.call, self.now = call, perf_counter if clock == "wall" else process_time
        self.calls = 1
        for _ in range(max(1, warmup)):
            once = self.sample()
        while once * self.calls < SHORTEST and self.calls < 10_000:  # single calls are too uneven to be extrapolated
            self.calls *= 2
            once = self.sample()

    def sample(self) -> float:
        """Seconds a call."""
        start = self.now()
        for _ in range(self.calls):
            out = self.call()
        synchronize(out if isinstance(out, tuple | list) else (out,))
        return (self.now() - start) / self.calls


def latency(
    model: nn.Module | Callable[..., Any],
    *inputs: Any,
    threads: int | None = None,
    seconds: float = 2.0,
    least: int = 5,
    most: int = 500,
    warmup: int = 2,
    clock: Clock = "wall",
) -> Timing:
    """Time of one forward, without gradients, in evaluation mode.

    Samples are taken for `seconds`, `least` of them at least and `most` at most, after `warmup` calls. `inputs` of a
    module are as for `count_macs`; any other callable is called with them as they are.
    """
    given = as_inputs(model, inputs) if isinstance(model, nn.Module) else inputs
    with evaluating(model), torch.inference_mode(), using_threads(threads) as used, without_collection():
        watch = Stopwatch(lambda: model(*given), clock=clock, warmup=warmup)
        samples: list[float] = []
        end = perf_counter() + seconds
        while len(samples) < least or (len(samples) < most and perf_counter() < end):
            samples.append(watch.sample())
    return Timing.of(samples, calls=watch.calls, threads=used, clock=clock)


@dataclass(frozen=True)
class Throughput(Report):
    """Items a second at one batch size."""

    batch: int
    per_second: float
    timing: Timing

    def table(self) -> Table:
        return throughput_table([self])


def throughput(
    model: nn.Module,
    *shape: int,
    batches: tuple[int, ...] = (1, 8, 32),
    threads: int | None = None,
    seconds: float = 2.0,
) -> list[Throughput]:
    """Items a second by batch size. `shape` is that of one item (a formery model's nominal one unless given)."""
    from .inputs import nominal_shape, random_input

    item = shape or nominal_shape(model)[1:]
    results = []
    for batch in batches:
        x: Tensor = random_input(model, (batch, *item))
        timing = latency(model, x, threads=threads, seconds=seconds, least=3)
        results.append(Throughput(batch, timing.per_second(batch), timing))
    return results


def throughput_table(results: list[Throughput]) -> Table:
    """All batch sizes in one table."""
    rows = [(str(r.batch), f"{r.per_second:.1f}", in_words(r.timing.median), share(r.timing.spread)) for r in results]
    return grid("Items a second", ("batch", "items/s", "a batch", "spread"), rows, texts=0)
