"""The gated delta rule beside what others' plain implementations give, and at its limits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from formery.ops import gated_delta_rule as rule
from formery.ops.gated_delta_rule import reference
from formery.ops.gated_delta_rule.chunked import chunk_length
from formery.ops.gated_delta_rule.traced import unit_lower_inverse
from tests.contract.recurrences import delta as draw
from tests.contract.recurrences import gradients, named
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS = named("gated_delta_rule").forms


def test_step_is_one_token_of_the_definition() -> None:
    inputs = draw(1)
    tokens, state = [x[:, 0] for x in inputs[:5]], inputs[5]
    o, last = rule.step(*tokens, state)
    torch.testing.assert_close((o[:, None], last), reference(*inputs))
    assert torch.autograd.gradcheck(rule.step, [x.requires_grad_() for x in (*tokens, state)])


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
