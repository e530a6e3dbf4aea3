"""Every residual scheme that is registered keeps what it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from formery.context import NOTHING
from tests.contract.common import close, differ
from tests.contract.everywhere import contract_of
from tests.contract.subjects import DIM, Promise, Subject, subjects


def sublayers(count: int) -> list[Callable[[Tensor], Tensor]]:
    """Fixed functions of a token."""
    draw = torch.Generator().manual_seed(8)
    weights = [torch.randn(DIM, DIM, dtype=torch.float64, generator=draw) / DIM**0.5 for _ in range(count)]
    return [lambda x, weight=weight: torch.tanh(x @ weight.to(x.dtype)) for weight in weights]  # type: ignore[misc]


def run(scheme: Any, x: Tensor) -> Tensor:
    """The tokens after a block with as many sublayers as the scheme was built for."""
    stream = scheme.start(x)
    for index, sublayer in enumerate(sublayers(len(scheme.norms))):
        stream = scheme.step(stream, index, sublayer, NOTHING)
    return scheme.finish(stream)


SCHEMES = contract_of("scheme", run, traced=False)


@SCHEMES.promise()
def check_any_number_of_sublayers(subject: Subject) -> None:
    x = subject.tokens()
    for count in (1, 2, 3):
        scheme = replace(subject, args=(DIM, count)).make()
        assert run(scheme, x).shape == x.shape
        assert torch.equal(scheme.finish(scheme.start(x)), x)


@SCHEMES.promise(simplest=True)
def check_each_sublayer_may_have_a_width_of_its_own(subject: Subject) -> None:
    scheme = replace(subject, args=((DIM, 8), 2)).make()
    for module in (*scheme.norms, *scheme.scales):
        assert all(parameter.shape[-1] in (DIM, 8) for parameter in module.parameters())
    for index, width in enumerate((DIM, 8)):
        assert scheme.normed(index, subject.tokens()[..., :width], NOTHING).shape[-1] == width


@SCHEMES.promise(simplest=True)
def check_branches_are_dropped_in_training_only(subject: Subject) -> None:
    dropping = replace(subject, options={**subject.options, "drop_path": 0.5}).make()
    x = subject.tokens(1).expand(400, -1, -1)
    expected = run(subject.make(), x)
    close(run(dropping, x), expected)
    dropping.train()
    y = run(dropping, x)
    outcomes = {tuple(item[0, :3].tolist()) for item in y.detach()}
    assert 2 <= len(outcomes) <= 4  # two sublayers, each left out or not
    assert differ(y[0], y[1:].mean(0))
    torch.manual_seed(0)
    again = run(dropping, x)
    torch.manual_seed(0)
    assert torch.equal(run(dropping, x), again)


@SCHEMES.promise(simplest=True)
def check_drop_path_keeps_the_mean(subject: Subject) -> None:
    """What is kept is scaled up: with one sublayer, the mean over items is what evaluation gives."""
    options = {**subject.options, "drop_path": 0.25, "norm": None}
    scheme = replace(subject, options=options, args=(DIM, 1)).make().train()
    x = subject.tokens(1)
    mean = run(scheme, x.expand(4000, *x.shape[1:])).mean(0)
    kept = run(scheme.eval(), x)[0]
    assert (mean - kept).norm() < 0.05 * (kept - x[0]).norm()


@SCHEMES.parametrize(subjects("scheme", ranks=(1, 2), args=(DIM, 2)))
def test_scheme(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
