"""Every head that is registered keeps what it declares."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from formery.context import NOTHING, Context
from formery.parts.heads.head import Features
from tests.contract.common import close, differ
from tests.contract.everywhere import contract_of
from tests.contract.subjects import DIM, Promise, Subject, subjects


def run(head: Any, x: Tensor, ctx: Context = NOTHING, prefix: int = 0) -> Tensor:
    """What a model does with a body's last tokens; of several maps, the last; all scores of several side by side."""
    x = head.finish(x, ctx)
    output = head(Features(x, prefix=prefix, maps={0: x}, extras={"token": x.flatten(1, -2)[:, :1]}), ctx)
    if isinstance(output, tuple):
        return torch.cat(output, dim=-1)
    return output[-1] if isinstance(output, list) else output


HEADS = contract_of("head", run)


@HEADS.promise(rank=1, causal=True)
def check_each_token_alone(subject: Subject) -> None:
    head, x = subject.make(), subject.tokens()
    assert run(head, x).shape == (2, 24, head.num_classes)
    changed = x.clone()
    changed[:, 1] += 1.0
    others = torch.arange(24) != 1
    close(run(head, changed)[:, others], run(head, x)[:, others])
    assert differ(run(head, changed)[:, 1], run(head, x)[:, 1])


@HEADS.promise(rank=1, causal=False)
def check_padding_does_not_count(subject: Subject) -> None:
    """What comes out for a padded row is what comes out for its tokens alone."""
    head, x = subject.make(), subject.tokens()
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[0, :5] = padding[0, 20:] = True
    x[padding] = 50.0
    y, alone = run(head, x, Context(padding=padding)), run(head, x[:1, 5:20])
    close(y[:1] if y.shape[1:] == alone.shape[1:] else y[:1, 5:20], alone)
    close(y[1:], run(head, x[1:]))


@HEADS.promise(rank=2, causal=False)
def check_prefix_and_grid(subject: Subject) -> None:
    """A map means the same flattened; class tokens in front of it are not the map."""
    head, x = subject.make(), subject.tokens()
    flat = x.flatten(1, -2)
    prefix = torch.randn(2, 2, DIM, dtype=x.dtype)
    with_prefix = run(head, torch.cat([prefix, flat], dim=1), Context(grid=subject.grid, prefix=2), prefix=2)
    if getattr(head, "pool", "avg") == "token":
        assert differ(with_prefix, run(head, x))
    elif head.num_classes or getattr(head, "pool", ""):
        close(with_prefix, run(head, x))


@HEADS.parametrize(subjects("head", ranks=(1, 2)))
def test_head(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
