"""The damped moving average: every form is the recurrence."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from formery.ops import damped_average as rule

pytestmark = pytest.mark.usefixtures("poisoned")


def draw(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    x = torch.randn(2, length, 5, dtype=dtype)
    keep, write, read = torch.rand(5, 3, dtype=dtype) * 0.98 + 0.01, *torch.randn(2, 5, 3, dtype=dtype)
    return [t.requires_grad_() for t in (x, keep, write, read, torch.randn(2, 5, 3, dtype=dtype))]


@pytest.mark.parametrize("length", [0, 1, 2, 40])
@pytest.mark.parametrize("given_", [False, True])
def test_values_and_gradients_are_the_definitions(length: int, given_: bool) -> None:
    inputs = draw(length)[: 5 if given_ else 4]
    expected, got = rule.reference(*inputs), rule.damped_average(*inputs)
    torch.testing.assert_close(got, expected)
    if length > 1:
        with torch.no_grad():
            torch.testing.assert_close(rule.exported(*inputs)[0], expected[0])
        losses = [(out[0].square().sum() + out[1].square().sum()) for out in (got, expected)]
        torch.testing.assert_close(*(torch.autograd.grad(loss, inputs) for loss in losses))


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 40), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    x, keep, write, read, state = (t.detach() for t in draw(40))
    whole, last = rule.damped_average(x, keep, write, read, state)
    edges, parts = [0, *sorted(cuts), 40], []
    for start, end in pairwise(edges):
        y, state = rule.damped_average(x[:, start:end], keep, write, read, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state, last)


def test_long_rows_go_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "PIECE", 7)
    inputs = [t.detach() for t in draw(40)]
    torch.testing.assert_close(rule.damped_average(*inputs), rule.reference(*inputs))


def test_half_precision_keeps_its_state() -> None:
    inputs = [t.detach() for t in draw(30, torch.bfloat16)][:4]
    y, state = rule.damped_average(*inputs)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected, _ = rule.reference(*(t.double() for t in inputs))
    assert (y.double() - expected).norm() < 0.02 * expected.norm()


def test_the_kernel_is_what_one_input_leaves() -> None:
    _, keep, write, read, _ = (t.detach() for t in draw(1))
    x = torch.zeros(1, 12, 5, dtype=torch.float64)
    x[:, 0] = 1
    torch.testing.assert_close(rule.damped_average(x, keep, write, read)[0][0].T, rule.kernel(keep, write, read, 12))
    assert rule.macs(2, 3, 5, 4) == 2 * 3 * 5 * 4 * 3
