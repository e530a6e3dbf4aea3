"""What context costs: the state of a stream, reading a prompt, and the next token after it, by length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..context import Stream
from ..errors import BadSpec, CannotRun
from ..model import Model
from .inputs import Subject, as_model, random_input, without_values
from .macs import count_macs
from .report import Report, count, grid, size
from .report import time as in_words
from .running import evaluating, synchronize, using_threads, without_collection
from .timing import Timing

if TYPE_CHECKING:
    from rich.table import Table

STEPS = 64
"""Tokens that are decoded at most after a prompt."""


def state_bytes(subject: Subject, tokens: int, batch: int = 1) -> int:
    """Bytes that the layers carry from chunk to chunk for `batch` streams of up to `tokens` tokens; none is allocated.

    `subject` is a formery model that streams, or the name or spec of one; CannotRun for one that does not stream.
    """
    return without_values(streaming(as_model(subject))).new_state(batch, tokens).nbytes()


@dataclass(frozen=True)
class ContextPoint:
    """What a context of one length costs, for one batch of streams."""

    tokens: int
    prefill: Timing
    """Reading the whole context at once."""
    decode: Timing
    """One more token after it."""
    state_bytes: int
    decode_macs: int
    """Of that one token, for the whole batch."""


@dataclass(frozen=True)
class ContextSweep(Report):
    """Cost by length of the context."""

    batch: int
    points: list[ContextPoint]

    def table(self) -> Table:
        rows = [
            (
                str(p.tokens),
                in_words(p.prefill.median),
                f"{self.batch * p.tokens / p.prefill.median:.0f}",
                in_words(p.decode.median),
                f"{self.batch / p.decode.median:.1f}",
                count(p.decode_macs),
                size(p.state_bytes),
            )
            for p in self.points
        ]
        columns = ("context", "prefill", "tokens/s", "next token", "tokens/s", "MACs", "state")
        return grid(f"Streams of batch {self.batch}", columns, rows, texts=0)


def context_sweep(
    model: Model, lengths: Iterable[int], *, batch: int = 1, seconds: float = 1.0, threads: int | None = None
) -> ContextSweep:
    """Prefill, decode and state at each of `lengths` (tokens, at least 1); about `seconds` a measurement.

    Decoding goes on from the prompt for up to `STEPS` tokens, each of them a sample.
    """
    streaming(model)
    points = []
    with evaluating(model), torch.inference_mode(), using_threads(threads) as used, without_collection():
        for length in lengths:
            if length < 1:
                raise BadSpec(f"a context has at least 1 token, got {length}")
            prompt, token = random_input(model, (batch, length)), random_input(model, (batch, 1))
            prefill, state = _prefill(model, prompt, seconds)
            decode = _decode(model, token, state, seconds)
            points.append(
                ContextPoint(
                    length,
                    Timing.of(prefill, calls=1, threads=used, clock="wall"),
                    Timing.of(decode, calls=1, threads=used, clock="wall"),
                    state_bytes(model, length, batch),
                    _macs_of_one_more(model, batch, length),
                )
            )
    return ContextSweep(batch, points)


def _prefill(model: Model, prompt: Tensor, seconds: float) -> tuple[list[float], Stream]:
    """Seconds of each reading of the prompt, after one that does not count; and the state after the last."""
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < 4 or (perf_counter() < end and len(samples) < STEPS):
        state = model.new_state(prompt.shape[0], prompt.shape[1] + STEPS + 2)
        samples.append(_timed(model, prompt, state))
    return samples[1:], state


def _decode(model: Model, token: Tensor, state: Stream, seconds: float) -> list[float]:
    _timed(model, token, state)
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < STEPS and (len(samples) < 3 or perf_counter() < end):
        samples.append(_timed(model, token, state))
    return samples


def _macs_of_one_more(model: Model, batch: int, past: int) -> int:
    hollow = without_values(model)
    state = hollow.new_state(batch, past + 1)
    hollow(torch.zeros(batch, past, dtype=torch.long, device="meta"), state=state)
    return count_macs(hollow, torch.zeros(batch, 1, dtype=torch.long, device="meta"), state=state).total


def _timed(model: Model, tokens: Tensor, state: Stream) -> float:
    synchronize((tokens,))
    start = perf_counter()
    synchronize((model(tokens, state=state),))
    return perf_counter() - start


def streaming(model: nn.Module) -> Model:
    """The model itself; CannotRun where it does not stream."""
    if not isinstance(model, Model) or not model.streams:
        name = getattr(model, "name", type(model).__name__)
        raise CannotRun(f"{name} does not stream; choose a causal model (formery list --streams)")
    return model
