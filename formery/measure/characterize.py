"""How time, memory and the work of operators grow with the context (after arXiv 2507.12442), and where models cross."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..context import NOTHING, Stream
from ..errors import BadSpec
from ..host import memory_left
from ..model import Model
from .inputs import random_input
from .memory import peak_memory
from .operators import CLASSES, operator_split, shares
from .parameters import count_parameters
from .report import Report, grid, share, size
from .report import time as in_words
from .running import evaluating, synchronize, using_threads, without_collection
from .streams import state_bytes, streaming

if TYPE_CHECKING:
    from rich.table import Table

NEW_TOKENS = 16
SPLIT_UNTIL = 4096
"""Operators are told apart up to this length: beyond it a profile of all events takes more memory than the model."""
SPARE = 0.8
"""Share of the free memory that a length may be expected to take."""


@dataclass(frozen=True)
class Point:
    """A context of one length."""

    tokens: int
    prefill: float
    """Seconds to the first token's scores, those of all others left out."""
    decode: float
    """Seconds a token after it."""
    state_bytes: int
    activation_bytes: int
    """The most that the prefill held beside weights."""
    operators: dict[str, float] | None
    """Seconds of the prefill by class of operator; None beyond `SPLIT_UNTIL`."""


@dataclass(frozen=True)
class Curve(Report):
    """A model's costs by the length of its context."""

    name: str
    parameters: int
    weight_bytes: int
    points: list[Point]
    stopped: str | None = None
    """Why longer contexts were not measured; None where all were."""
    exponents: dict[str, float | None] = field(default_factory=dict)
    """Of prefill, decode and state_bytes: slope of log cost over log length, over the upper half of the lengths."""

    def table(self) -> Table:
        rows = [
            (
                f"{p.tokens:,}",
                in_words(p.prefill),
                in_words(p.decode),
                size(p.state_bytes),
                size(self.weight_bytes + p.activation_bytes),
                *(["-"] * len(CLASSES) if p.operators is None else _shares(p.operators)),
            )
            for p in self.points
        ]
        slopes = ", ".join(f"{name} {'-' if n is None else f'{n:.2f}'}" for name, n in self.exponents.items())
        columns = ("context", "prefill", "next token", "state", "memory", *CLASSES)
        return grid(f"{self.name}: growth exponents {slopes}", columns, rows, texts=0)


def _shares(operators: Mapping[str, float]) -> list[str]:
    found = shares(operators)
    return [share(found[kind]) for kind in CLASSES]


def lengths_between(first: int, last: int) -> list[int]:
    """`first`, twice that, ... up to `last`, which is always the end."""
    if not 1 <= first <= last:
        raise BadSpec(f"contexts run from at least 1 up, as 512:65536, got {first}:{last}")
    lengths = []
    while first < last:
        lengths.append(first)
        first *= 2
    return [*lengths, last]


def characterize(
    model: Model,
    lengths: Iterable[int],
    *,
    name: str | None = None,
    seconds: float = 2.0,
    threads: int | None = None,
    room: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Curve:
    """Measure prefill, decode, memory, state and operators at each length, rising; a length takes some `seconds` unless
    a single forward takes longer.

    Stops, and says why, before a length that is expected to take more than `SPARE` of the memory left (`room` bytes
    unless given: what the machine has). CannotRun for a model that does not stream.
    """
    streaming(model)
    wanted = sorted(set(lengths))
    if not wanted or wanted[0] < 1:
        raise BadSpec("a context has at least 1 token")
    counted = count_parameters(model)
    points: list[Point] = []
    stopped = None
    with evaluating(model), torch.inference_mode(), using_threads(threads), without_collection():
        for length in wanted:
            needed = _expected(model, points, length)
            left = _left(next(model.parameters()).device) if room is None else room
            if left is not None and needed > SPARE * left:
                stopped = (
                    f"a context of {length:,} is expected to take {size(needed)} beside the weights, "
                    f"{size(left)} are left"
                )
                break
            if say is not None:
                say(f"{name or model.name}: {length:,} tokens")
            points.append(_point(model, length, seconds))
    exponents: dict[str, float | None] = {
        "prefill": exponent([(p.tokens, p.prefill) for p in points]),
        "decode": exponent([(p.tokens, p.decode) for p in points]),
        "state_bytes": exponent([(p.tokens, p.state_bytes) for p in points]),
    }
    return Curve(name or model.name, counted.total, counted.bytes + counted.buffer_bytes, points, stopped, exponents)


def _left(device: torch.device) -> int | None:
    """Bytes that can still be asked for on a device; None where nobody says."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else memory_left()


def _expected(model: Model, points: Sequence[Point], length: int) -> float:
    """Bytes of state and activations: those of the last length, grown as they grew before (linearly at first)."""
    state = state_bytes(model, length + NEW_TOKENS + 1)
    if not points:
        width, hidden = model.num_features, 8
        return state + 4.0 * length * width * hidden
    last = points[-1]
    growth = max(1.0, exponent([(p.tokens, p.activation_bytes) for p in points]) or 1.0)
    return state + float(last.activation_bytes * (length / last.tokens) ** growth)


def _point(model: Model, length: int, seconds: float) -> Point:
    prompt, token = random_input(model, (1, length)), random_input(model, (1, 1))
    prefill, state = _prefill(model, prompt, seconds)
    decode = [_timed(model, token, state) for _ in range(NEW_TOKENS + 1)][1:]
    # Both are warm from the prefill: a long prompt is not read again for that.
    split = operator_split(lambda: _read(model, prompt), warmup=False) if length <= SPLIT_UNTIL else None
    held = peak_memory(_Reader(model), prompt, warmup=False).activations
    return Point(length, median(prefill), median(decode), state_bytes(model, length), held, split)


class _Reader(torch.nn.Module):
    """A model that reads a prompt and gives the scores of what comes next."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, prompt: Tensor) -> Any:
        return _read(self.model, prompt)[0]


def _read(model: Model, prompt: Tensor) -> tuple[Any, Stream]:
    state = model.new_state(1, prompt.shape[1] + NEW_TOKENS + 1)
    return model(prompt, state=state, ctx=NOTHING.but(last=1)), state


def _prefill(model: Model, prompt: Tensor, seconds: float) -> tuple[list[float], Stream]:
    """Times of reading the prompt; the first reading warms up, and is all there is where it takes long."""
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < 2 or (perf_counter() < end and len(samples) < 20):
        synchronize((prompt,))
        start = perf_counter()
        scores, state = _read(model, prompt)
        synchronize((scores,))
        samples.append(perf_counter() - start)
        if samples[0] > 4 * seconds:
            return samples, state
    return samples[1:], state


def _timed(model: Model, token: Tensor, state: Stream) -> float:
    start = perf_counter()
    synchronize((model(token, state=state),))
    return perf_counter() - start


def exponent(pairs: Sequence[tuple[float, float]]) -> float | None:
    """`slope` over the upper half of the lengths (two at least)."""
    return slope(sorted(pairs)[-max(2, -(-len(pairs) // 2)) :])


def slope(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Slope of log cost over log length by least squares; None where there are fewer than two, or a cost is 0."""
    if len(pairs) < 2 or any(cost <= 0 for _, cost in pairs):
        return None
    xs, ys = [math.log(length) for length, _ in pairs], [math.log(cost) for _, cost in pairs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def crossing(first: Curve, second: Curve, what: str = "prefill") -> float | None:
    """The length from which on the model that was slower is the faster one, interpolated between measured lengths in
    logarithms; None where the same one is faster throughout."""
    mine = {p.tokens: getattr(p, what) for p in first.points}
    theirs = {p.tokens: getattr(p, what) for p in second.points}
    shared = sorted(mine.keys() & theirs.keys())
    ratios = [math.log(mine[n] / theirs[n]) for n in shared]
    for a, b, low, high in zip(shared, shared[1:], ratios, ratios[1:], strict=False):
        if low * high < 0:
            return math.exp(math.log(a) + (math.log(b) - math.log(a)) * low / (low - high))
    return None


def plot(curves: Sequence[Curve], path: Any) -> None:
    """Prefill, decode, state and the share of operators by the length of the context, as PNG or SVG."""
    from pathlib import Path

    from matplotlib.figure import Figure

    from ..files import atomic

    figure = Figure(figsize=(11, 3.4 + 2.6 * -(-len(curves) // 3)), layout="constrained")
    subfigures: Any = figure.subfigures(2, 1, height_ratios=(3.4, 2.6 * -(-len(curves) // 3)))
    above, below = subfigures
    kinds = {"prefill": "prefill (s)", "decode": "next token (s)", "state_bytes": "state (bytes)"}
    for axes, (what, label) in zip(above.subplots(1, 3), kinds.items(), strict=True):
        for curve in curves:
            slope = curve.exponents.get(what)
            text = curve.name if slope is None else f"{curve.name}: {slope:.2f}"
            axes.plot([p.tokens for p in curve.points], [getattr(p, what) for p in curve.points], marker="o", ms=3,
                      label=text)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("context (tokens)")
        axes.set_title(f"{label}; growth exponents", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    rows = below.subplots(-(-len(curves) // 3), min(3, len(curves)), squeeze=False).flatten()
    for axes, curve in zip(rows, curves, strict=False):
        told = [p for p in curve.points if p.operators]
        axes.set_title(f"{curve.name}: share of a prefill's time (%)", fontsize=9)
        if not told:  # a stack of nothing has no logarithmic axis
            continue
        splits = [shares(p.operators or {}) for p in told]
        bands = [[100 * split[kind] for split in splits] for kind in CLASSES]
        axes.stackplot([p.tokens for p in told], bands, labels=CLASSES, alpha=0.85)
        axes.set_xscale("log", base=2)
        axes.set_ylim(0, 100)
        axes.legend(fontsize=6, loc="upper left", ncols=2)
    for axes in rows[len(curves) :]:
        axes.set_axis_off()
    with atomic(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=150)
