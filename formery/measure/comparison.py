"""Several models side by side, so that their ratios hold even where the machine does not keep still.

Rounds go through all models in a random order; a round's times are divided by one another, and the ratios' median and
first quartile are what is reported. What slows the machine for a while slows all of a round.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import BadSpec
from .inputs import as_inputs
from .machine import Machine, machine
from .macs import count_macs
from .parameters import count_parameters
from .report import Report, grid, share
from .report import time as in_words
from .running import evaluating, using_threads, without_collection
from .timing import Clock, Stopwatch, Timing, quartiles

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Work:
    """Something to be timed, and what it has to do at least."""

    call: Callable[[], Any]
    macs: int | None = None
    """Multiply-accumulates a call."""
    bytes: int | None = None
    """Bytes that a call has to read: its weights, a stream's state."""
    dtype: torch.dtype = torch.float32
    """What the products are computed in."""
    model: nn.Module | None = None
    """Put into evaluation mode meanwhile."""

    @classmethod
    def of(cls, model: nn.Module, *inputs: Any) -> Work:
        """A forward of `model`, with its MACs and weights counted. `inputs` as for `count_macs`."""
        given = as_inputs(model, inputs)
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        macs = count_macs(model, *given).total
        return cls(lambda: model(*given), macs, count_parameters(model).bytes, dtype, model)


@dataclass(frozen=True)
class Row:
    """One model among others."""

    name: str
    timing: Timing
    ratio: float
    """How many times faster than the base: median over the rounds."""
    ratio_lower: float
    """First quartile: faster than this in three rounds of four."""
    ratio_upper: float
    of_products: float | None
    """Share of the machine's own rate of matrix products, in the same dtype; None where MACs are not known."""
    of_bandwidth: float | None
    """Share of the machine's own memory bandwidth that reading the weights once a call takes."""


@dataclass(frozen=True)
class Comparison(Report):
    """Models side by side; `base` has ratio 1."""

    base: str
    rows: list[Row]
    seed: int
    machine: Machine | None
    samples: dict[str, list[float]]
    """Seconds a call of each, by rounds."""

    @property
    def rounds(self) -> int:
        return len(self.samples[self.base])

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def against(self, base: str) -> Comparison:
        """The same samples with ratios to another of the models."""
        if base not in self.samples:
            raise BadSpec(f"base {base!r} is none of {', '.join(self.samples)}")
        rows = []
        for row in self.rows:
            lower, middle, upper = _ratios(self.samples, base, row.name)
            rows.append(replace(row, ratio=middle, ratio_lower=lower, ratio_upper=upper))
        return replace(self, base=base, rows=rows)

    def table(self) -> Table:
        rows = [
            (
                row.name,
                in_words(row.timing.median),
                share(row.timing.spread),
                f"{row.ratio:.2f}x",
                f"{row.ratio_lower:.2f}x",
                share(row.of_products),
                share(row.of_bandwidth),
            )
            for row in self.rows
        ]
        timing = self.rows[0].timing
        title = (
            f"{self.rounds} interleaved rounds, {timing.threads} thread(s), {timing.clock} time, load {timing.load:.1f}"
        )
        columns = ("model", "median", "spread", f"vs {self.base}", "1st quartile", "of products", "of bandwidth")
        return grid(title, columns, rows)


def compare(
    works: Mapping[str, Work | Callable[[], Any]],
    *,
    base: str | None = None,
    seconds: float = 10.0,
    least: int = 5,
    most: int = 200,
    warmup: int = 2,
    threads: int | None = None,
    seed: int = 0,
    clock: Clock = "wall",
    shares: bool = True,
) -> Comparison:
    """Time all of `works` (by name) in turn for about `seconds` together, without gradients; ratios are to `base`.

    The base is the first unless named. There are `least` rounds at least and `most` at most. `shares` measures the
    machine first (see `machine`), unless it is known.
    """
    if not works:
        raise BadSpec("nothing to compare: give at least one model")
    chosen = {name: work if isinstance(work, Work) else Work(work) for name, work in works.items()}
    base = next(iter(chosen)) if base is None else base
    if base not in chosen:
        raise BadSpec(f"base {base!r} is none of {', '.join(chosen)}")
    models = [work.model for work in chosen.values()]
    with evaluating(*models), torch.inference_mode(), using_threads(threads) as used, without_collection():
        known = machine(used) if shares else None
        watches = {name: Stopwatch(work.call, clock=clock, warmup=warmup) for name, work in chosen.items()}
        samples = _rounds(watches, random.Random(seed), perf_counter() + seconds, least, most)
    rows = []
    for name, work in chosen.items():
        timing = Timing.of(samples[name], calls=watches[name].calls, threads=used, clock=clock)
        products = work.macs / timing.median / known.rate(work.dtype) if known and work.macs else None
        bandwidth = work.bytes / timing.median / known.bandwidth if known and work.bytes else None
        lower, middle, upper = _ratios(samples, base, name)
        rows.append(Row(name, timing, middle, lower, upper, products, bandwidth))
    return Comparison(base, rows, seed, known, samples)


def _ratios(samples: Mapping[str, list[float]], base: str, name: str) -> tuple[float, float, float]:
    """Quartiles of a round's base time over its time of `name`."""
    return quartiles([b / t for b, t in zip(samples[base], samples[name], strict=True)])


def _rounds(
    watches: Mapping[str, Stopwatch], order: random.Random, end: float, least: int, most: int
) -> dict[str, list[float]]:
    """Seconds a call of each, by rounds."""
    samples: dict[str, list[float]] = {name: [] for name in watches}
    for number in range(most):
        if number >= least and perf_counter() >= end:
            break
        turn = list(watches)
        order.shuffle(turn)
        for name in turn:
            samples[name].append(watches[name].sample())
    return samples
