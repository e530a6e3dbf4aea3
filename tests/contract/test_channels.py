"""Every channel mixer that is registered keeps what it declares."""

from __future__ import annotations

import torch

from formery.context import NOTHING
from tests.contract import common
from tests.contract.common import close, differ
from tests.contract.everywhere import contract_of
from tests.contract.subjects import Promise, Subject, subjects

CHANNELS = contract_of("channel", lambda channel, x: channel(x, NOTHING))


@CHANNELS.promise(over="channels")
def check_each_token_alone(subject: Subject) -> None:
    channel, x = subject.make(), subject.tokens()
    y = channel(x)
    assert y.shape == x.shape
    changed = x.clone()
    changed[:, 1] += 1.0
    others = torch.arange(x.shape[1]) != 1
    close(channel(changed)[:, others], y[:, others])
    assert differ(channel(changed)[:, 1], y[:, 1])


@CHANNELS.promise(over="grid and channels")
def check_other_tokens_count(subject: Subject) -> None:
    channel, x = subject.make(), subject.tokens()
    assert channel(x).shape == x.shape
    changed = x.clone()
    changed[:, 1] *= 3.0
    assert differ(channel(changed)[:, 0], channel(x)[:, 0])


@CHANNELS.promise()
def check_scales_fold(subject: Subject) -> None:
    common.check_scales_fold(subject.make, lambda channel, x: channel(x), subject.tokens())


@CHANNELS.parametrize(subjects("channel"))
def test_channel(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
