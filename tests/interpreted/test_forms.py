"""Every Triton form is the definition: in values, gradients and dtypes, for any length, size, split and layout."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from formery.ops.backend import using
from tests.contract.recurrences import Recurrence, double, gradients
from tests.interpreted.forms import NARROW, OPS, STRONG, WIDE, assert_near, far

pytestmark = pytest.mark.usefixtures("poisoned")
EACH = pytest.mark.parametrize("op", OPS, ids=str)


@pytest.mark.parametrize("op", NARROW, ids=str)
@pytest.mark.parametrize("length", [1, 16, 37])
def test_values_and_gradients(op: Recurrence, length: int) -> None:
    inputs = op.draw(length, 2 if length == 1 else 1, torch.float32)
    before = [None if x is None else x.clone() for x in inputs]
    assert_near(op.quick, op, inputs)
    for x, kept in zip(inputs, before, strict=True):
        assert x is kept or torch.equal(x, kept)


@pytest.mark.parametrize("op", STRONG, ids=str)
def test_strong_decays(op: Recurrence) -> None:
    assert_near(op.quick, op, op.draw(37, 1, torch.float32))


@pytest.mark.parametrize("op", WIDE, ids=str)
def test_wide_heads_in_long_chunks(op: Recurrence) -> None:
    length = {"selective scan, wide": 6, "linear attention, wide": 34}.get(op.name, 66)
    assert_near(op.quick, op, op.draw(length, 1, torch.float32))


@EACH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str)
def test_dtypes(op: Recurrence, dtype: torch.dtype, tolerance: float) -> None:
    inputs = op.draw(5, 1, dtype)
    with torch.no_grad():
        y, state = op.quick(*inputs)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    assert far(state, op.reference(*double(inputs))[1]) <= 2e-6
    assert_near(op.quick, op, inputs, tolerance, 10 * tolerance)


@EACH
def test_any_split_carries_on(op: Recurrence) -> None:
    *tokens, state = inputs = op.draw(37, 1, torch.float32)
    whole, parts = op.reference(*double(inputs)), []
    with using("triton"):
        for begin, end in pairwise([0, 0, 3, 19, 20, 37]):
            y, state = op.face(*op.cut([*tokens, state], begin, end))
            parts.append(y)
    assert far(torch.cat(parts, 1), whole[0]) <= 2e-6
    assert far(state, whole[1]) <= 2e-6


@EACH
def test_inputs_lie_in_memory_as_they_like(op: Recurrence) -> None:
    """Channels that are not neighbours, tokens that are far apart, and gradients that are one number everywhere."""
    inputs = op.draw(5, 2, torch.float32)
    spread = [
        None if x is None else torch.stack([x.mT.contiguous().mT if x.dim() > 1 else x] * 2, 1)[:, 1] for x in inputs
    ]
    for got, expected in zip(op.quick(*spread), op.quick(*inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    leaves = [None if x is None else x.requires_grad_() for x in inputs]
    given = [x for x in leaves if x is not None]
    got = torch.autograd.grad(op.quick(*leaves)[0].sum(), given)
    exact = [None if x is None else x.detach().double().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(op.reference(*exact)[0].sum(), [x for x in exact if x is not None])
    for slope, wanted in zip(got, expected, strict=True):
        assert far(slope, wanted) <= 1e-5


@EACH
def test_the_gradient_of_one_input_alone(op: Recurrence) -> None:
    inputs = op.draw(5, 1, torch.float32)
    wanted = inputs[op.learned].requires_grad_()
    (got,) = torch.autograd.grad(op.quick(*inputs)[0].sum(), wanted)
    (expected,) = torch.autograd.grad(op.reference(*inputs)[0].sum(), wanted)
    assert far(got, expected.double()) <= 1e-5


@EACH
def test_gradients_of_gradients(op: Recurrence) -> None:
    inputs = [x if x is None else x.requires_grad_() for x in op.draw(5, 1, torch.float32)]
    given = [x for x in inputs if x is not None]

    def second(form) -> tuple[torch.Tensor, ...]:  # type: ignore[no-untyped-def]
        first = torch.autograd.grad(form(*inputs)[0].square().sum(), given, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), given)

    for got, expected in zip(second(op.quick), second(op.reference), strict=True):
        assert far(got, expected.double()) <= 1e-4


@EACH
def test_the_operator_of_compiled_graphs(op: Recurrence) -> None:
    torch._dynamo.reset()
    inputs = op.draw(5, 1, torch.float32)
    with using("triton"):
        got = gradients(torch.compile(op.face, backend="aot_eager", fullgraph=True), inputs)
    for slope, wanted in zip(got, gradients(op.reference, double(inputs)), strict=True):
        assert far(slope, wanted) <= 1e-5
