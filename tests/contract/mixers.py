"""What every token mixer promises by what it declares, without a stream."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from formery.context import NOTHING, Context
from formery.errors import CannotRun
from formery.parts.mixers.grids import on_grid
from tests.contract import common
from tests.contract.common import close, differ
from tests.contract.subjects import GRIDS, OTHER_GRIDS, Contract, Subject

MIXERS = Contract()
promise = MIXERS.promise
LENGTHS = [7, 1, 11, 5]
JUNK = 30.0


def contexts(subject: Subject) -> list[Context]:
    """The contexts that make a difference: for mixers that are causal on request, with and without."""
    return [NOTHING, Context(causal=True)] if subject.declared("causal") == "on request" else [NOTHING]


def ordered(subject: Subject) -> Context:
    """The context in which a mixer is causal."""
    return Context(causal=subject.declared("causal") == "on request")


def later_changed(x: Tensor, first: int) -> Tensor:
    """Tokens with all from number `first` (in raster order) replaced."""
    flat = x.flatten(1, -2)
    other = torch.randn(flat[:, first:].shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    return torch.cat([flat[:, :first], other], dim=1).view_as(x)


@promise()
def check_shape_and_dtype(subject: Subject) -> None:
    for dtype, ctx in itertools.product((torch.float64, torch.float32), contexts(subject)):
        mixer, x = subject.make(dtype), subject.tokens().to(dtype)
        y = mixer(x, ctx)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert y.isfinite().all()
        assert torch.equal(mixer(x, ctx), y)


@promise()
def check_gradients(subject: Subject) -> None:
    for ctx in contexts(subject):
        mixer = subject.make()
        slopes = not subject.declared("surrogate")
        common.check_gradients(mixer, lambda x, mixer=mixer, ctx=ctx: mixer(x, ctx), subject.tokens(), slopes=slopes)


@promise(looks_at_batch=False)
def check_batch(subject: Subject) -> None:
    for ctx in contexts(subject):
        mixer = subject.make()
        common.check_batch(mixer, lambda x, mixer=mixer, ctx=ctx: mixer(x, ctx), subject.tokens(3))


@promise()
def check_nothing_is_stored(subject: Subject) -> None:
    mixer = subject.make()
    common.check_left_alone(mixer, lambda: [mixer(subject.tokens(), ctx) for ctx in contexts(subject)])


@promise()
def check_names(subject: Subject) -> None:
    mixer = subject.make()
    common.check_names(mixer)
    assert mixer.macs(24) >= 0
    assert isinstance(mixer.macs(24), int)


@promise()
def check_scales_fold(subject: Subject) -> None:
    for ctx in contexts(subject):
        common.check_scales_fold(subject.make, lambda mixer, x, ctx=ctx: mixer(x, ctx), subject.tokens())


@promise(causal=("always", "on request"))
def check_causality(subject: Subject) -> None:
    mixer, x, ctx = subject.make(), subject.tokens(), ordered(subject)
    for first in (1, 12, 23):
        before = [mixer(tokens, ctx).flatten(1, -2)[:, :first] for tokens in (x, later_changed(x, first))]
        close(before[1], before[0])


@promise(causal=("never", "on request"))
def check_later_tokens_are_seen(subject: Subject) -> None:
    """Whoever does not declare to be causal is not: promises are not dodged by declaring too little."""
    mixer, x = subject.make(), subject.tokens()
    seen = []
    for first in (12, 5):  # the second lies amid a row, for mixers that keep to rows
        before = [mixer(tokens).flatten(1, -2)[:, :first] for tokens in (x, later_changed(x, first))]
        seen.append(differ(before[1], before[0]))
    assert any(seen)


@promise(streams=("any", "segments"))
def check_what_streams_is_causal(subject: Subject) -> None:
    assert subject.declared("causal") != "never"


def packed(subject: Subject, mixer: Any, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """Sequences in one row, and each in its own."""
    bounds = torch.tensor([0, *itertools.accumulate(LENGTHS)])
    together = mixer(x, ctx.but(bounds=bounds, memo={}))
    return together, torch.cat([mixer(sequence, ctx) for sequence in x.split(LENGTHS, dim=1)], dim=1)


@promise(packs=True, rank=1)
def check_packed_is_separate(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens(1)
    for ctx in contexts(subject):
        close(*packed(subject, mixer, x, ctx))
        apart = x.clone().requires_grad_()
        gradient = torch.autograd.grad(packed(subject, mixer, apart, ctx)[0][:, :7].sum(), apart)[0]
        assert not gradient[:, 7:].any()


def padded(x: Tensor, left: list[int], right: list[int]) -> tuple[Tensor, Context]:
    """Rows (B, L, C) whose first and last tokens are replaced by junk, and the context a model makes of that."""
    rows, padding = x.clone(), torch.zeros(x.shape[:2], dtype=torch.bool)
    for row, (first, last) in enumerate(zip(left, right, strict=True)):
        padding[row, :first] = padding[row, x.shape[1] - last :] = True
    rows[padding] = JUNK * torch.randn(rows[padding].shape, dtype=x.dtype)
    positions = ((~padding).long().cumsum(1) - 1).clamp(min=0)
    return rows, Context(padding=padding, key_padding=padding, positions=positions, memo={})


PADS = [([0, 3, 1], [4, 1, 0]), ([5, 0, 2], [0, 5, 3]), ([0, 0, 0], [0, 2, 9])]
"""Padding on the left and right of three rows: on both sides, on one, ragged."""


@promise(packs=True, rank=1)
def check_padding_changes_nothing(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens(3)
    for ctx, (left, right) in itertools.product(contexts(subject), PADS):
        rows, padding = padded(x, left, right)
        y = mixer(rows, padding.but(causal=ctx.causal))
        assert y.isfinite().all()
        for row in range(3):
            real = ~padding.padding[row]  # type: ignore[index]
            close(y[row][real], mixer(rows[row][real][None], ctx)[0])


@promise(packs=True, rank=1)
def check_no_gradient_from_padding(subject: Subject) -> None:
    mixer, x = subject.make(), subject.tokens(3)
    rows, ctx = padded(x, [0, 3, 1], [4, 1, 0])
    rows.requires_grad_()
    assert ctx.padding is not None
    y = mixer(rows, ctx.but(causal=ordered(subject).causal))
    gradient = torch.autograd.grad(common.weighted(y[~ctx.padding]), rows)[0]
    assert gradient.isfinite().all()
    assert not gradient[ctx.padding].any()


@promise(fixed_grid=False)
def check_other_sizes(subject: Subject) -> None:
    mixer, grid = subject.make(), OTHER_GRIDS[len(subject.grid)]
    for ctx in contexts(subject):
        x = subject.tokens(grid=grid)
        assert mixer(x, ctx).shape == x.shape


@promise(fixed_grid=True)
def check_bound_to_one_grid(subject: Subject) -> None:
    mixer, grid = subject.make(), OTHER_GRIDS[len(subject.grid)]
    with pytest.raises(CannotRun, match="bound to 24 tokens"):
        mixer(subject.tokens(grid=grid))
    elsewhere = subject.plain(grid).state_dict()
    differing = {name for name, tensor in mixer.state_dict().items() if tensor.shape != elsewhere[name].shape}
    assert differing
    there = dict(subject.plain(grid).named_modules())
    bound = {  # names of tensors, with their rules and the grids that they are bound to, here and there
        f"{path}.{name}".strip("."): (rule, part.grid if path else subject.grid, there[path].grid if path else grid)
        for path, part in mixer.named_modules()
        for name, rule in getattr(part, "resizes", {}).items()
    }
    assert set(bound) == (differing if mixer.resizable else set())
    for name, (rule, before, after) in bound.items():
        tensor = mixer.state_dict()[name]
        assert rule(tensor, before, after).shape == elsewhere[name].shape
        assert torch.equal(rule(tensor, before, before), tensor)


@promise(rank=1, maps="row by row")
def check_maps_row_by_row(subject: Subject) -> None:
    """A mixer of sequences reads a map in raster order."""
    mixer, x = subject.make(), subject.tokens(grid=GRIDS[2])
    for ctx in contexts(subject):
        close(on_grid(mixer, x, ctx, None).flatten(1, -2), mixer(x.flatten(1, -2), ctx))


def with_prefix(subject: Subject) -> tuple[Tensor, Context]:
    """Three class tokens in front of a flattened map."""
    x = subject.tokens()
    prefix = torch.randn(2, 3, x.shape[-1], dtype=x.dtype)
    return torch.cat([prefix, x.flatten(1, -2)], dim=1), Context(grid=subject.grid, prefix=3)


@promise(rank=2, maps="only")
def check_prefix_is_left_alone(subject: Subject) -> None:
    """A mixer of maps does not see class tokens."""
    mixer, (rows, ctx) = subject.make(), with_prefix(subject)
    y = on_grid(mixer, rows, ctx, None)
    assert not y[:, :3].any()
    close(y[:, 3:], mixer(subject.tokens()).flatten(1, -2))


@promise(rank=2, maps="too", fixed_grid=False)
def check_prefix_is_mixed_in(subject: Subject) -> None:
    """A mixer of sequences sees class tokens as the first tokens."""
    mixer, (rows, ctx) = subject.make(), with_prefix(subject)
    close(on_grid(mixer, rows, ctx, None), mixer(rows, ctx))


@promise(surrogate=False)
def check_half_precision(subject: Subject) -> None:
    for ctx in contexts(subject):
        common.check_half(subject.make, subject.tokens(), lambda mixer, x, ctx=ctx: mixer(x, ctx))


@promise(surrogate=False)
def check_autocast(subject: Subject) -> None:
    """Inside `torch.autocast` a mixer in float32 computes near what it computes outside."""
    mixer, x, ctx = subject.make(torch.float32), subject.tokens().float().requires_grad_(), ordered(subject)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x, ctx)
    assert torch.autograd.grad(common.weighted(y), x)[0].isfinite().all()
    assert (y.float() - mixer(x, ctx)).norm() < 0.03 * y.float().norm()


def sizes(subject: Subject) -> list[Tensor]:
    """Inputs of two sizes, of which a part bound to a grid sees two batches."""
    fixed = subject.declared("fixed_grid")
    return [subject.tokens(2), subject.tokens(3, subject.grid if fixed else OTHER_GRIDS[len(subject.grid)])]


@promise(simplest=True)
def check_compiles(subject: Subject) -> None:
    mixer, ctx = subject.make(), ordered(subject)
    common.check_compiles(mixer, sizes(subject), lambda x: mixer(x, ctx))


@promise(simplest=True, exports=True)
def check_exports(subject: Subject) -> None:
    mixer = subject.make()
    free = [0] if subject.declared("fixed_grid") else list(range(len(subject.grid) + 1))
    common.check_exports(mixer, sizes(subject), mixer, free)
