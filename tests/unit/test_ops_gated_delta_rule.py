"""The gated delta rule: every form is the definition, in values and gradients, for any length, chunk and split."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from formery.ops import gated_delta_rule as rule
from formery.ops.gated_delta_rule import gated_delta_rule, reference
from formery.ops.gated_delta_rule.chunked import chunk_length
from formery.ops.gated_delta_rule.traced import unit_lower_inverse
from tests.contract.recurrences import gradients
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "chunked": rule.chunked,
    "chunked 1": lambda *x: rule.chunked(*x, chunk=1),
    "chunked 7": lambda *x: rule.chunked(*x, chunk=7),
    "chunked 64": lambda *x: rule.chunked(*x, chunk=64),
    "differentiable": rule.differentiable,
    "differentiable 16": lambda *x: rule.differentiable(*x, chunk=16),
    "compiled": rule.compiled,
    "fastest": gated_delta_rule,
}


def draw(
    length: int, batch: int = 2, heads: int = 3, key: int = 8, value: int = 6, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """(q, k, v, g, beta, state) as they come: unit keys, beta in (0, 2), decays from none to strong."""
    q, k = (F.normalize(torch.randn(batch, length, heads, key, dtype=torch.float64), dim=-1) for _ in range(2))
    v = torch.randn(batch, length, heads, value, dtype=torch.float64)
    g = -(torch.rand(batch, length, heads, dtype=torch.float64) ** 4) * 8
    beta = 2 * torch.rand(batch, length, heads, dtype=torch.float64)
    state = torch.randn(batch, heads, key, value, dtype=torch.float64)
    return [x.to(dtype) for x in (q, k, v, g, beta)] + [state.to(torch.promote_types(dtype, torch.float32))]


@pytest.mark.parametrize("length", [0, 1, 2, 16, 33, 130])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_the_definitions(form: str, length: int) -> None:
    inputs = draw(length)
    before = [x.clone() for x in inputs]
    torch.testing.assert_close(FORMS[form](*inputs), reference(*inputs))
    torch.testing.assert_close(inputs, before, rtol=0, atol=0)
    if length:
        torch.testing.assert_close(gradients(FORMS[form], inputs), gradients(reference, inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str
)
def test_dtypes(form: str, dtype: torch.dtype, tolerance: float) -> None:
    inputs = draw(70, dtype=dtype)
    o, state = FORMS[form](*inputs)
    assert o.dtype == dtype
    assert state.dtype == torch.float32
    exact = [x.double() for x in inputs]
    # Rounding of the output to its dtype apart, everything is computed in float32.
    for got, expected, allowed in zip((o, state), reference(*exact), (tolerance, 2e-6), strict=True):
        assert (got.double() - expected).abs().max() <= allowed * expected.abs().max()
    for got, expected in zip(gradients(FORMS[form], inputs), gradients(reference, exact), strict=True):
        assert (got.double() - expected).abs().max() <= 10 * tolerance * expected.abs().max()


@given(cuts=st.lists(st.integers(0, 70), max_size=4))
def test_any_split_carries_on(cuts: list[int]) -> None:
    *tokens, start = draw(70)
    whole = reference(*tokens, start)
    state, parts = start, []
    for begin, end in pairwise([0, *sorted(cuts), 70]):
        o, state = gated_delta_rule(*(x[:, begin:end] for x in tokens), state)
        parts.append(o)
    torch.testing.assert_close((torch.cat(parts, 1), state), whole)


def test_step_is_one_token_of_the_definition() -> None:
    inputs = draw(1)
    tokens, state = [x[:, 0] for x in inputs[:5]], inputs[5]
    o, last = rule.step(*tokens, state)
    torch.testing.assert_close((o[:, None], last), reference(*inputs))
    assert torch.autograd.gradcheck(rule.step, [x.requires_grad_() for x in (*tokens, state)])


def test_without_a_state_it_starts_from_zeros() -> None:
    inputs = draw(20, dtype=torch.float16)
    got = gated_delta_rule(*inputs[:5])
    torch.testing.assert_close(got, gated_delta_rule(*inputs[:5], torch.zeros_like(inputs[5])))
    assert got[1].dtype == torch.float32


@pytest.mark.parametrize("name", ["gated_delta", "delta"])
@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str, name: str) -> None:
    """What the flash-linear-attention project's plain implementations give; `delta` has no decay."""
    B, L, H, K, V, seed = 2, 37, 2, 8, 6, 20
    q, k = (normal((B, L, H, K), seed + i) for i in (0, 1))
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    g = F.logsigmoid(normal((B, L, H), seed + 4)) * (name == "gated_delta")
    inputs = (q * K**-0.5, k, normal((B, L, H, V), seed + 2), g, normal((B, L, H), seed + 3).sigmoid())
    o, state = {"reference": reference, **FORMS}[form](*inputs, normal((B, H, K, V), seed + 6))
    golden = recorded("linear_ops")
    for got, key in ((o, name), (state, f"{name}_state")):
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=1e-6)


def test_extreme_decay_is_exact_and_finite() -> None:
    """A decay that forgets everything, next to none at all: exp of a difference must not meet zero times infinity."""
    *tokens, state = draw(40, dtype=torch.float32)
    tokens[3] = torch.where(torch.rand_like(tokens[3]) < 0.2, -1e4, 0.0)
    inputs = [*tokens, state]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 5e-6 * expected.abs().max()
        assert all(x.isfinite().all() for x in gradients(form, inputs))


def test_repeated_keys_with_negative_eigenvalues_stay_accurate() -> None:
    """The worst matrix to solve: one key throughout, beta near 2, no decay. A power series would lose all digits."""
    *tokens, state = draw(128, dtype=torch.float32)
    tokens[1] = tokens[1][:, :1].expand_as(tokens[1])
    tokens[3], tokens[4] = torch.zeros_like(tokens[3]), torch.full_like(tokens[4], 1.99)
    inputs = [*tokens, state]
    exact = reference(*(x.double() for x in inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("size", [1, 2, 16, 64])
def test_unit_lower_inverse(size: int) -> None:
    A = torch.randn(3, size, size, dtype=torch.float64).tril(-1) / 2
    unit = torch.eye(size, dtype=torch.float64)
    expected = torch.linalg.solve_triangular(A + unit, unit.expand_as(A), upper=False, unitriangular=True)
    torch.testing.assert_close(unit_lower_inverse(A), expected)


def test_macs_are_three_products_a_token() -> None:
    assert rule.macs(2, 10, 3, 8, 6) == 2 * 10 * 3 * 3 * 8 * 6


def test_few_rows_take_longer_chunks() -> None:
    assert [chunk_length(rows, 96, 192) for rows in (1, 100)] == [64, 32]
