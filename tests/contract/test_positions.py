"""Every position part that is registered keeps what it declares."""

from __future__ import annotations

import itertools
from math import prod

import torch
from torch import Tensor

from formery.context import NOTHING, Context
from tests.contract.common import close, differ
from tests.contract.everywhere import contract_of
from tests.contract.subjects import DIM, OTHER_GRIDS, Promise, Subject, subjects


def queries(subject: Subject, grid: tuple[int, ...]) -> int:
    """How many queries stand on a grid."""
    return prod(-(-n // subject.options.get("stride", 1)) for n in grid)


def inputs(subject: Subject, batch: int) -> Tensor:
    """Tokens (B, *grid, C), queries (B, H, L, D) for parts that turn them, or scores (B, H, N, N), fewer
    rows where queries stand on some places alone."""
    if subject.part.acts_on == "scores":
        draw = torch.Generator().manual_seed(1)
        shape = queries(subject, subject.grid), 24
        return torch.randn(batch, DIM, *shape, generator=draw, dtype=torch.float64)
    if subject.part.acts_on == "tokens":
        return subject.tokens(batch)
    return torch.stack([subject.tokens(batch, seed=head).flatten(1, -2) for head in range(3)], dim=1)


POSITIONS = contract_of("position", lambda position, x: position(x, NOTHING), inputs)


@POSITIONS.promise()
def check_shape(subject: Subject) -> None:
    x = inputs(subject, 2)
    assert subject.make()(x).shape == x.shape


@POSITIONS.promise(rank=1, acts_on=("tokens", "queries and keys"))
def check_places_decide(subject: Subject) -> None:
    """Tokens handed over in another order with their places give the same in that order."""
    position, x = subject.make(), inputs(subject, 2)
    axis = x.dim() - 2
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    y = position(x)
    close(position(x, Context(positions=torch.arange(24))), y)
    close(position(x.index_select(axis, order), Context(positions=order)), y.index_select(axis, order))
    rows = torch.stack([torch.arange(24), order])
    each = torch.stack([y[0], position(x, Context(positions=order))[1]])
    close(position(x, Context(positions=rows)), each)
    assert differ(position(x, Context(positions=order)), y)


@POSITIONS.promise(rank=1, acts_on="tokens")
def check_packed_sequences_begin_anew(subject: Subject) -> None:
    position, x, lengths = subject.make(), inputs(subject, 1), [7, 1, 11, 5]
    bounds = torch.tensor([0, *itertools.accumulate(lengths)])
    separate = torch.cat([position(sequence) for sequence in x.split(lengths, dim=1)], dim=1)
    close(position(x, Context(bounds=bounds)), separate)


@POSITIONS.promise(rank=1, acts_on=("tokens", "queries and keys"))
def check_shorter_sequences(subject: Subject) -> None:
    position, x = subject.make(), inputs(subject, 2)
    axis = x.dim() - 2
    close(position(x.narrow(axis, 0, 9)), position(x).narrow(axis, 0, 9))


@POSITIONS.promise(rank=2, acts_on="tokens")
def check_flattened_map_with_prefix(subject: Subject) -> None:
    """With class tokens in front, the map's tokens get what they get as a map; another size is fine as well."""
    position = subject.make()
    for grid in (subject.grid, OTHER_GRIDS[2]):
        x = subject.tokens(grid=grid)
        prefix = torch.randn(2, 2, DIM, dtype=x.dtype)
        rows = torch.cat([prefix, x.flatten(1, -2)], dim=1)
        y = position(rows, Context(grid=grid, prefix=2))
        close(y[:, 2:], position(x).flatten(1, -2))
        if getattr(position, "prefix", None) is None:
            close(y[:, :2], prefix)


@POSITIONS.promise(acts_on="queries and keys")
def check_lengths_are_kept(subject: Subject) -> None:
    """Turning keeps a query's length, and a product depends on how far apart two places are; angles are float32."""
    position, x = subject.make(), inputs(subject, 2)
    close(position(x).norm(dim=-1), x.norm(dim=-1), tolerance=1e-6)
    q, k = x, inputs(subject, 2).flip(1)
    products = [
        (
            position(q, Context(positions=torch.arange(24) + s))
            * position(k, Context(positions=torch.arange(24) + s + 3))
        )
        for s in (0, 40)
    ]
    torch.testing.assert_close(products[1].sum(-1), products[0].sum(-1), rtol=1e-4, atol=1e-4)


@POSITIONS.promise(acts_on="scores")
def check_bias_is_one_of_two_places(subject: Subject) -> None:
    """The same for the whole batch, of the places alone, and what is added; another grid has a bias as well."""
    position, x = subject.make(), inputs(subject, 2)
    bias = position.bias()
    assert bias.shape == (DIM, queries(subject, subject.grid), 24)
    close(position(x), x + bias)
    close(position.bias(subject.grid), bias)
    other = OTHER_GRIDS[len(subject.grid)]
    count = torch.Size(other).numel()
    assert position.bias(other).shape == (DIM, queries(subject, other), count)
    assert differ(bias[:, 0], bias[:, 1])


@POSITIONS.parametrize(subjects("position", ranks=(1, 2)))
def test_position(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
