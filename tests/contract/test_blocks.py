"""Every block that is registered keeps what it declares."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from formery.context import NOTHING
from tests.contract.everywhere import contract_of
from tests.contract.subjects import Promise, Subject, subjects


def run(block: Any, x: Tensor) -> Tensor:
    """The tokens after the block alone."""
    return block.scheme.finish(block(block.scheme.start(x), NOTHING))


BLOCKS = contract_of("block", run, traced=False)


@BLOCKS.promise()
def check_sublayers_in_order(subject: Subject) -> None:
    """Every sublayer has its norm and its scale, and is found under its name."""
    block, x = subject.make(), subject.tokens()
    assert run(block, x).shape == (*x.shape[:-1], block.dim)
    steps = list(block.steps())
    assert [index for index, _, _ in steps] == list(range(len(block.names)))
    assert len(block.scheme.norms) == len(block.scheme.scales) == len(steps)
    for _, name, part in steps:
        assert block.get_submodule(name) is part


@BLOCKS.parametrize(subjects("block", ranks=(1, 2)))
def test_block(promise: Promise, subject: Subject) -> None:
    promise.check(subject)
