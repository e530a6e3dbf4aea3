"""What every token mixer promises of its streams."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from formery.context import Context, State, Stream
from formery.errors import CannotRun
from tests.contract import common
from tests.contract.common import close
from tests.contract.mixers import JUNK, MIXERS, ordered
from tests.contract.subjects import Subject

promise = MIXERS.promise
LENGTH = 24
SPLITS = [[24], [1] * 24, [5, 1, 11, 7], [23, 1], [1, 23], [2] * 12, [3, 8, 1, 1, 1, 10], [9, 6, 9]]


class Running:
    """A mixer with the stream of a batch of rows."""

    def __init__(self, mixer: Any, batch: int, capacity: int = LENGTH) -> None:
        self.mixer, own = mixer, mixer.new_state(batch, capacity)
        self.stream = Stream.start(State() if own is None else State(mixer=own), batch, capacity)

    def __call__(self, chunk: Tensor, padding: Tensor | None = None) -> Tensor:
        ctx = self.stream.context(Context(causal=True, padding=padding, memo={}), chunk.shape[1])
        y: Tensor = self.mixer(chunk, ctx, self.stream.parts.under("mixer"))
        return y


def streamed(mixer: Any, x: Tensor, split: list[int]) -> Tensor:
    """The output of x (B, L, C) in chunks."""
    running = Running(mixer, x.shape[0], x.shape[1])
    return torch.cat([running(chunk) for chunk in x.split(split, dim=1)], dim=1)


@promise(streams="any", rank=1)
def check_any_split_gives_the_whole(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens()
    whole = mixer(x, ordered(subject)).detach()
    for split in SPLITS:
        close(streamed(mixer, x, split).detach(), whole)
        with torch.no_grad():
            close(streamed(mixer, x, split), whole)


@promise(streams="any", rank=1)
def check_gradients_pass_through_a_stream(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens().requires_grad_()
    tensors = [x, *common.trainable(mixer).values()]
    whole = torch.autograd.grad(common.weighted(mixer(x, ordered(subject))), tensors)
    for split in ([8, 8, 8], [1] * 24, [5, 1, 11, 7]):
        chunks = torch.autograd.grad(common.weighted(streamed(mixer, x, split)), tensors)
        for ours, expected in zip(chunks, whole, strict=True):
            close(ours, expected)


@promise(streams="any", rank=1)
def check_gradients_may_come_and_go(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens()
    whole = mixer(x, ordered(subject)).detach()
    for modes in itertools.product((True, False), repeat=4):
        running, outputs = Running(mixer, 2), []
        for chunk, mode in zip(x.split([5, 1, 11, 7], dim=1), modes, strict=True):
            with torch.set_grad_enabled(mode):
                outputs.append(running(chunk).detach())
        close(torch.cat(outputs, dim=1), whole)


@promise(streams="any", rank=1)
def check_detach_cuts_gradients(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens()
    whole = mixer(x, ordered(subject)).detach()
    first, second = (chunk.clone().requires_grad_() for chunk in x.split([10, 14], dim=1))
    running = Running(mixer, 2)
    running(first)
    running.stream = running.stream.detach()
    y = running(second)
    close(y.detach(), whole[:, 10:])
    earlier, own = torch.autograd.grad(common.weighted(y), [first, second], allow_unused=True)
    assert earlier is None
    assert own.any()


def ragged(x: Tensor, capacity: int) -> list[tuple[Tensor, Tensor]]:
    """Rows of x in chunks in which each has some of its tokens, at the left or right, and junk beside them."""
    draw, given, chunks = random.Random(1), [0] * x.shape[0], []
    while capacity > 0 and min(given) < x.shape[1]:
        length = min(draw.randint(1, 6), capacity)
        chunk = JUNK * torch.randn(x.shape[0], length, x.shape[2], dtype=x.dtype)
        padding = torch.ones(x.shape[0], length, dtype=torch.bool)
        for row, start in enumerate(given):
            count = min(draw.randint(0, length), x.shape[1] - start)
            at = draw.choice([slice(0, count), slice(length - count, length)])
            chunk[row, at], padding[row, at] = x[row, start : start + count], False
            given[row] += count
        capacity -= length
        chunks.append((chunk, padding))
    return chunks


@promise(streams="any", packs=True, rank=1)
def check_ragged_streams_go_on(subject: Subject) -> None:
    """A row padded in one chunk continues in the next as if it had not been."""
    mixer, x = subject.make(), subject.tokens(3)
    whole = mixer(x, ordered(subject)).detach()
    for gradients in (False, True):
        running, outputs = Running(mixer, 3, 100), [[x[0, :0]] for _ in range(3)]
        with torch.set_grad_enabled(gradients):
            for chunk, padding in ragged(x, 100):
                y = running(chunk, padding)
                assert y.isfinite().all()
                for row in range(3):
                    outputs[row].append(y[row][~padding[row]].detach())
        rows = [torch.cat(row) for row in outputs]
        assert min(map(len, rows)) > 15
        for row, expected in zip(rows, whole, strict=True):
            close(row, expected[: len(row)])


@promise(streams="any", packs=True, rank=1)
def check_padded_prompt_then_decoding(subject: Subject) -> None:
    """Prompts of different lengths, padded on either side, then one token at a time without padding."""
    mixer, x = subject.make(), subject.tokens(3)
    whole = mixer(x, ordered(subject)).detach()
    prompts = [4, 9, 7]
    for left in (True, False):
        rows, padding = JUNK * torch.ones(3, 9, x.shape[2], dtype=x.dtype), torch.ones(3, 9, dtype=torch.bool)
        for row, length in enumerate(prompts):
            at = slice(9 - length, 9) if left else slice(0, length)
            rows[row, at], padding[row, at] = x[row, :length], False
        running = Running(mixer, 3, LENGTH)
        with torch.no_grad():
            running(rows, padding)
            for step in range(LENGTH - 9):
                y = running(torch.stack([x[row, length + step] for row, length in enumerate(prompts)])[:, None])
                for row, length in enumerate(prompts):
                    close(y[row, 0], whole[row, length + step])


@promise(streams="any", rank=1)
def check_state_growth(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens()
    running, larger = Running(mixer, 2, 64), Running(mixer, 2, 128)
    size = running.stream.nbytes()
    if subject.declared("state_growth") == "constant":
        assert larger.stream.nbytes() == size
    else:
        assert larger.stream.nbytes() == 2 * size > 0
    with torch.no_grad():
        for chunk in x.split([5, 1, 11, 7], dim=1):
            running(chunk)
    assert running.stream.nbytes() == size


@promise(streams="any", rank=1)
def check_states_of_chosen_rows(subject: Subject) -> None:
    mixer, x, rows = subject.make(), subject.tokens(3), torch.tensor([2, 0, 0, 1])
    whole = mixer(x, ordered(subject)).detach()
    for gradients in (False, True):
        running = Running(mixer, 3)
        with torch.set_grad_enabled(gradients):
            running(x[:, :9])
            running.stream = running.stream.select(rows)
            close(running(x[rows, 9:20]).detach(), whole[rows, 9:20])
            running.stream = running.stream.select(rows[:2])
            close(running(x[rows[rows[:2]], 20:]).detach(), whole[rows[rows[:2]], 20:])


@promise(streams="any", rank=1)
def check_snapshots_come_back(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens()
    whole = mixer(x, ordered(subject)).detach()
    for gradients in (False, True):
        running = Running(mixer, 2, 48)
        with torch.set_grad_enabled(gradients):
            running(x[:, :9])
            early = running.stream.snapshot()
            running(x[:, 9:15])
            late = running.stream.snapshot()
            for _ in range(2):
                running(x.flip(1)[:, :13])  # another continuation, then back
                running.stream.restore(early)
                running(x.flip(1)[:, :8])
                running.stream.restore(late)
                close(running(x[:, 15:]).detach(), whole[:, 15:])
                running.stream.restore(early)
                close(running(x[:, 9:]).detach(), whole[:, 9:])


@promise(streams="any", rank=1)
def check_overflow_is_an_error(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens()
    running = Running(mixer, 2, 8)
    running(x[:, :5])
    with pytest.raises(CannotRun, match="holds 8 tokens, 9 are needed"):
        running(x[:, 5:9])
    if subject.declared("state_growth") == "linear":
        with pytest.raises(CannotRun, match="holds 8 tokens, 9 are needed"):
            mixer(x[:, :9], Context(causal=True), mixer.new_state(2, 8))


@promise(streams="any", rank=1, surrogate=False)
def check_streams_in_half_precision(subject: Subject) -> None:
    mixer, x = subject.make(torch.bfloat16), subject.tokens().to(torch.bfloat16)
    with torch.no_grad():
        y = streamed(mixer, x, [5, 1, 11, 7])
        exact = mixer.float()(x.float(), ordered(subject))
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).norm() / exact.norm() < 0.03


@promise(streams="any", rank=1, surrogate=False)
def check_streams_in_autocast(subject: Subject) -> None:
    mixer, x = subject.make(torch.float32), subject.tokens().float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = streamed(mixer, x, [5, 1, 11, 7])
    with torch.no_grad():
        exact = mixer(x, ordered(subject))
    assert (y.float() - exact).norm() < 0.03 * exact.norm()


@promise(streams="no")
def check_no_state_without_streams(subject: Subject) -> None:
    """Who does not stream has no state either, so that none is dropped unseen."""
    assert subject.make().new_state(2, LENGTH) is None
