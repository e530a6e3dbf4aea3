"""How time, memory and the work of operators grow with the context (after arXiv 2507.12442), and where models cross."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
BRIEF = 0.2
"""Seconds: of shorter forwards three are profiled, since a single one may be disturbed."""
WARMUP = 64
"""The most tokens of the prompt that is read before anything is timed."""
NOISE = 0.05
"""Models whose costs differ by no more than this share are taken to cost the same."""
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
    """Of prefill, decode and state_bytes: slope of log cost over log length, over the upper half of the lengths; None
    for fewer than three lengths, whose noise would be the slope."""

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
    keep: Callable[[Curve], None] | None = None,
) -> Curve:
    """Measure prefill, decode, memory, state and operators at each length, rising; a length takes some `seconds` unless
    a single forward takes longer.

    Stops, and says why, before a length that is expected to take more than `SPARE` of the memory left (`room` bytes
    unless given: what the machine has). CannotRun for a model that does not stream.

    say: is told what is measured next. keep: is given the curve so far after each length.
    """
    streaming(model)
    wanted = sorted(set(lengths))
    if not wanted or wanted[0] < 1:
        raise BadSpec("a context has at least 1 token")
    counted = count_parameters(model)
    points: list[Point] = []
    stopped = None

    def curve(reason: str | None) -> Curve:
        weights = counted.bytes + counted.buffer_bytes
        return Curve(name or model.name, counted.total, weights, list(points), reason, _exponents(points))

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
                say(f"{name or model.name}: {counted_tokens(length)}")
            if not points:  # a first forward loads and chooses what later ones find
                _read(model, random_input(model, (1, min(length, WARMUP))))
            points.append(_point(model, length, seconds))
            if keep is not None:
                keep(curve(None if length == wanted[-1] else f"nothing beyond {counted_tokens(length)} was measured"))
    return curve(stopped)


def counted_tokens(number: float) -> str:
    """1 token, 2,048 tokens."""
    text = f"{number:,.0f}"
    return f"{text} token{'' if text == '1' else 's'}"


def _exponents(points: Sequence[Point]) -> dict[str, float | None]:
    kinds = ("prefill", "decode", "state_bytes")
    if len(points) < 3:
        return dict.fromkeys(kinds)
    return {kind: exponent([(p.tokens, getattr(p, kind)) for p in points]) for kind in kinds}


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
    split = None
    if length <= SPLIT_UNTIL:
        repeats = 3 if median(prefill) < BRIEF else 1
        split = operator_split(lambda: _read(model, prompt), warmup=False, repeats=repeats)
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
    """Times of reading the prompt; the first is all there is where it takes long, and left out elsewhere: it
    chooses what fits this length."""
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
    logarithms; None where the same one is faster throughout, but for differences within `NOISE`."""
    mine = {p.tokens: getattr(p, what) for p in first.points}
    theirs = {p.tokens: getattr(p, what) for p in second.points}
    shared = sorted(mine.keys() & theirs.keys())
    ratios = [math.log(mine[n] / theirs[n]) for n in shared]
    clear = [i for i, ratio in enumerate(ratios) if abs(ratio) > math.log1p(NOISE)]
    for before, after in pairwise(clear):
        if ratios[before] * ratios[after] < 0:
            at = max(i for i in range(before, after) if ratios[i] * ratios[after] <= 0)
            low, high = ratios[at], ratios[at + 1]
            a, b = math.log(shared[at]), math.log(shared[at + 1])
            return math.exp(a + (b - a) * low / (low - high))
    return None


def plot(curves: Sequence[Curve], path: Any) -> None:
    """Prefill, decode, state and the share of operators by the length of the context, as PNG or SVG."""
    from pathlib import Path

    from matplotlib.figure import Figure

    from ..files import atomic

    rows = -(-len(curves) // 3)
    heights = (3.2 + 0.16 * len(curves), 0.4 + 2.6 * rows)  # inches; a line of the legends for each model
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    subfigures: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = subfigures
    _plot_costs(curves, above.subplots(1, 3))
    panels = below.subplots(rows, min(3, len(curves)), squeeze=False).flatten()
    bands = _plot_operators(curves, panels)
    if bands:
        below.legend(bands.values(), bands.keys(), loc="outside lower center", ncols=len(bands), fontsize=8)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=150)


def _plot_costs(curves: Sequence[Curve], panels: Iterable[Any]) -> None:
    from matplotlib.ticker import LogFormatter

    kinds = {
        "prefill": ("prefill (ms)", 1e3),
        "decode": ("next token (ms)", 1e3),
        "state_bytes": ("state (MiB)", 2**-20),
    }
    for axes, (what, (label, factor)) in zip(panels, kinds.items(), strict=True):
        for curve in curves:
            growth = curve.exponents.get(what)
            text = curve.name if growth is None else f"{curve.name}: {growth:.2f}"
            costs = [factor * getattr(p, what) for p in curve.points]
            axes.plot([p.tokens for p in curve.points], costs, marker="o", ms=3, label=text)
        if any(curve.points for curve in curves):  # nothing has no logarithm
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())  # 6, not 6 x 10^0
            axes.yaxis.set_minor_formatter(LogFormatter())
        axes.set_xlabel("context (tokens)")
        axes.set_ylabel(label)
        axes.set_title(f"{label.partition(' (')[0]}; growth exponents", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2))  # below: curves fill the panel


def _plot_operators(curves: Sequence[Curve], panels: Sequence[Any]) -> dict[str, Any]:
    """Draws a panel for each model; returns a drawn area for each class that occurs in any."""
    from matplotlib import color_sequences

    occur = [kind for kind in CLASSES if any((p.operators or {}).get(kind) for curve in curves for p in curve.points)]
    colors = [color_sequences["tab10"][CLASSES.index(kind)] for kind in occur]
    drawn: dict[str, Any] = {}
    for axes, curve in zip(panels, curves, strict=False):
        told = [p for p in curve.points if p.operators]
        axes.set_title(f"{curve.name}: share of a prefill's time (%)", fontsize=9)
        axes.set_xlabel("context (tokens)")
        if not told:  # a stack of nothing has no logarithmic axis
            continue
        splits = [shares(p.operators or {}) for p in told]
        bands = [[100 * split[kind] for split in splits] for kind in occur]
        areas = axes.stackplot([p.tokens for p in told], bands, colors=colors, alpha=0.85)
        drawn |= dict(zip(occur, areas, strict=True))
        axes.set_xscale("log", base=2)
        axes.set_ylim(0, 100)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    return drawn
