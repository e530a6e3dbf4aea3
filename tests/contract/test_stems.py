"""Every stem that is registered keeps what it declares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from formery.context import NOTHING
from formery.errors import CannotRun
from formery.parts.several import grids, several
from formery.parts.strides import PerAxis
from tests.contract import common
from tests.contract.common import close, joined
from tests.contract.everywhere import check_spec
from tests.contract.subjects import Contract, Promise, Subject, subjects

SIZE = 16
STEMS = Contract()


def made(subject: Subject, dtype: torch.dtype = torch.float64) -> Any:
    """The stem, for small images where it takes images."""
    more = {"img_size": SIZE} if subject.part.modality == "image" else {}
    return Subject(subject.part, {**subject.options, **more}, subject.grid, ()).make(dtype)


def _like(stem: Any) -> torch.dtype:
    return next((p.dtype for p in stem.parameters()), torch.float64)


def raw(stem: Any, batch: int, size: int = SIZE) -> Tensor:
    """What its modality goes in as."""
    draw = torch.Generator().manual_seed(6)
    if stem.modality == "text":
        return torch.randint(0, stem.vocab, (batch, size), generator=draw)
    if stem.modality == "series":
        return torch.randn(batch, size, stem.channels, generator=draw, dtype=torch.float64).to(_like(stem))
    assert stem.modality in ("image", "video")
    weight, frames = next(stem.parameters()), (4,) if stem.modality == "video" else ()
    return torch.randn(batch, 3, *frames, size, size, generator=draw, dtype=torch.float64).to(weight.dtype)


@STEMS.promise()
def check_tokens_are_as_it_says(subject: Subject) -> None:
    stem = made(subject)
    tokens, ctx = stem(raw(stem, 2), NOTHING)
    larger = stem(raw(stem, 2, 2 * SIZE), NOTHING)[0]
    pictures = stem.modality in ("image", "video")
    each_grid = grids(stem.grid) if pictures else [(stem.tokens_of(SIZE),)]
    told = several(tokens), several(larger), each_grid, several(stem.dim), several(stem.stride)
    for x, more, grid, width, stride in zip(*told, strict=True):
        assert x.shape == (2, *grid, width)
        assert x.dtype == torch.float64
        last, side = (stride.values[-1], -2) if isinstance(stride, PerAxis) else (stride, 1)
        twice = 2 * SIZE // last if pictures else stem.tokens_of(2 * SIZE)
        assert more.shape[side] == (grid[0] if stem.fixed_grid else twice)
        assert not pictures or round(SIZE / last) == grid[-1 if len(grid) == 3 else 0]
    assert ctx == NOTHING


@STEMS.promise()
def check_every_parameter_is_reached(subject: Subject) -> None:
    stem = made(subject)
    ids = torch.arange(stem.vocab)[None] if stem.modality == "text" else raw(stem, 2)
    common.weighted(joined(stem(ids, NOTHING)[0])).backward()
    assert all(p.grad is not None and p.grad.any() for p in common.trainable(stem).values())


@STEMS.promise()
def check_batch(subject: Subject) -> None:
    stem = made(subject)
    x = raw(stem, 3)
    close(joined(stem(x, NOTHING)[0])[1:], joined(stem(x[1:], NOTHING)[0]))


@STEMS.promise()
def check_nothing_is_stored(subject: Subject) -> None:
    stem = made(subject)
    common.check_left_alone(stem, lambda: stem(raw(stem, 2), NOTHING))
    common.check_names(stem)


@STEMS.promise()
def check_spec_round_trip(subject: Subject) -> None:
    check_spec("stem", subject)


@STEMS.promise()
def check_wrong_input_is_refused(subject: Subject) -> None:
    stem = made(subject)
    wrong = torch.zeros(2, 8) if stem.modality == "text" else torch.zeros(2, 5, SIZE, SIZE, dtype=torch.float64)
    with pytest.raises(CannotRun):
        stem(wrong, NOTHING)


@STEMS.promise(surrogate=False)
def check_half_precision(subject: Subject) -> None:
    half = made(subject, torch.bfloat16)
    y = joined(half(raw(half, 2), NOTHING)[0])
    exact = made(subject, torch.bfloat16).float()
    expected = joined(exact(raw(half, 2) if half.modality == "text" else raw(half, 2).float(), NOTHING)[0])
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).norm() < 0.03 * expected.norm()


@STEMS.promise(exports=True)
def check_exports(subject: Subject) -> None:
    stem = made(subject)
    xs = [raw(stem, 2), raw(stem, 3)]
    common.check_exports(stem, xs, lambda x: joined(stem(x, NOTHING)[0]), [0])


@STEMS.parametrize(subjects("stem", ranks=(1,), args=()))
def test_stem(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
