"""Every form of a recurrence is its definition: in values, gradients and dtypes, for any length, chunk and split."""

from __future__ import annotations

import inspect
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.recurrences import FORMED, SUBJECTS, Recurrence, double, gradients

FORMS = [pytest.param(op, name, id=f"{op}-{name}") for op in FORMED for name in op.forms]
GIVEN_AWAY = [op for op in SUBJECTS if "overwrite" in inspect.signature(op.face).parameters]
SPLIT = 90


@pytest.mark.parametrize("length", [0, 1, 2, 16, 33, 70, 130])
@pytest.mark.parametrize(("op", "form"), FORMS)
def test_values_and_gradients_are_the_definitions(op: Recurrence, form: str, length: int) -> None:
    inputs = op.draw(length, 2, torch.float64)
    before = [None if x is None else x.clone() for x in inputs]
    torch.testing.assert_close(op.forms[form](*inputs), op.reference(*inputs))
    for x, kept in zip(inputs, before, strict=True):
        assert x is kept or torch.equal(x, kept)
    if length:
        torch.testing.assert_close(gradients(op.forms[form], inputs), gradients(op.reference, inputs))


@pytest.mark.parametrize(("op", "form"), FORMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str
)
def test_dtypes(op: Recurrence, form: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = op.draw(70, 2, dtype)
    y, state = op.forms[form](*inputs)
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    exact = double(inputs)
    # Rounding of the output to its dtype apart, everything is computed in float32.
    for got, expected, allowed in zip((y, state), op.reference(*exact), (tolerance, 2e-6), strict=True):
        assert (got.double() - expected).abs().max() <= allowed * expected.abs().max()
    for got, expected in zip(gradients(op.forms[form], inputs), gradients(op.reference, exact), strict=True):
        assert (got.double() - expected).abs().max() <= 10 * tolerance * expected.abs().max()


@pytest.mark.parametrize("op", FORMED, ids=str)
@given(cuts=st.lists(st.integers(0, SPLIT), max_size=4))
def test_any_split_carries_on(op: Recurrence, cuts: list[int]) -> None:
    *tokens, state = inputs = op.draw(SPLIT, 2, torch.float64)
    whole, parts = op.reference(*inputs), []
    for begin, end in pairwise([0, *sorted(cuts), SPLIT]):
        y, state = op.face(*op.cut([*tokens, state], begin, end))
        parts.append(y)
    torch.testing.assert_close((torch.cat(parts, 1), state), whole)


@pytest.mark.parametrize("op", FORMED, ids=str)
def test_without_a_state_it_starts_from_zeros(op: Recurrence) -> None:
    *tokens, state = op.draw(20, 2, torch.float16)
    got = op.face(*tokens)
    torch.testing.assert_close(got, op.face(*tokens, torch.zeros_like(state)))
    assert got[1].dtype == torch.float32


@pytest.mark.parametrize("op", GIVEN_AWAY, ids=str)
@pytest.mark.parametrize(
    ("length", "follows", "grad", "over"),
    [(1, False, True, True), (1, True, True, False), (1, True, False, False), (5, False, True, False)],
)
def test_a_state_given_away_is_written_over(op: Recurrence, length: int, follows: bool, grad: bool, over: bool) -> None:
    """By a single token where no gradient passes or has passed, and by nothing else."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = op.draw(length, 2, dtype)
        inputs[-1].requires_grad_(follows)
        wanted, before = op.face(*inputs), inputs[-1].clone()
        with torch.set_grad_enabled(grad):
            got = op.face(*inputs, overwrite=True)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
        assert (got[1].data_ptr() == inputs[-1].data_ptr()) is over
        assert torch.equal(inputs[-1], before) is not over
