"""Every norm that is registered keeps what it declares."""

from __future__ import annotations

import torch

from formery.context import NOTHING
from tests.contract.common import close, differ
from tests.contract.everywhere import contract_of
from tests.contract.subjects import Promise, Subject, subjects

NORMS = contract_of("norm", lambda norm, x: norm(x, NOTHING))


@NORMS.promise()
def check_shape(subject: Subject) -> None:
    x = subject.tokens()
    assert subject.make()(x).shape == x.shape


@NORMS.promise(over=("channels", "batch and grid"))
def check_each_token_alone(subject: Subject) -> None:
    """In evaluation, where a batch's statistics are what they were in training."""
    norm, x = subject.make(), subject.tokens()
    changed = x.clone()
    changed[:, 1] *= 3.0
    others = torch.arange(x.shape[1]) != 1
    close(norm(changed)[:, others], norm(x)[:, others])


@NORMS.promise(over="grid and channels")
def check_other_tokens_count(subject: Subject) -> None:
    norm, x = subject.make(), subject.tokens()
    changed = x.clone()
    changed[:, 1] *= 3.0
    assert differ(norm(changed)[:, 0], norm(x)[:, 0])


@NORMS.promise(over="batch and grid")
def check_statistics_are_kept(subject: Subject) -> None:
    """In training the running statistics move, and evaluation uses them."""
    norm, x = subject.make(), 2 * subject.tokens(4) + 1
    before = norm(x)
    norm.train()
    for _ in range(200):
        norm(x)
    norm.eval()
    assert differ(norm(x), before)
    spread = norm(x).flatten(0, -2).var(0) / norm.weight.square()
    torch.testing.assert_close(spread, torch.ones_like(spread), rtol=1e-2, atol=0)


@NORMS.parametrize(subjects("norm"))
def test_norm(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
