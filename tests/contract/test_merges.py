"""Every merge that is registered keeps what it declares."""

from __future__ import annotations

import pytest

from formery.errors import BadSpec
from formery.parts.strides import per_axis
from formery.spec import Place, build
from tests.contract.everywhere import contract_of
from tests.contract.subjects import DIM, OTHER_GRIDS, Promise, Subject, subjects

OUT = 40
MERGES = contract_of("merge", lambda merge, x: merge(x))


@MERGES.promise()
def check_grid_is_the_one_it_says(subject: Subject) -> None:
    merge = subject.make()
    for grid in (subject.grid, OTHER_GRIDS[len(subject.grid)], (8,) * len(subject.grid)):
        assert merge(subject.tokens(grid=grid)).shape == (2, *merge.new_grid(grid), OUT)
    strides = per_axis(merge.stride, len(subject.grid))
    assert merge.new_grid((8,) * len(subject.grid)) == tuple(8 // stride for stride in strides)


@MERGES.parametrize(subjects("merge", args=(DIM, OUT)))
def test_merge(promise: Promise, subject: Subject) -> None:
    promise.check(subject)


def test_a_merge_on_a_grid_it_does_not_take_is_refused() -> None:
    stack = {"kind": "stack", "layout": "identity", "merge": "conv", "dim": 8}
    with pytest.raises(BadSpec, match="body: merge 'conv' works on 2-D grids, here the grid is 1-D"):
        build("body", stack, 8, place=Place("body", grid=(24,)))
