"""The fast norm against its definition, in every way it is called."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import vmap

from formery.ops.rms_norm import reference, rms_norm


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_equals_the_definition(dtype: torch.dtype, weighted: bool) -> None:
    x = torch.randn(3, 5, 33).to(dtype)
    weight = torch.randn(33).to(dtype) if weighted else None
    wanted = reference(x, weight, 1e-3)
    tight = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    kept = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, weight, 1e-3), wanted, rtol=tight, atol=tight)
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), wanted, rtol=tight, atol=tight)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("dtype", "of_weight"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float64),
        (torch.float16, torch.bfloat16),
    ],
)
def test_another_dtype_of_the_weight(dtype: torch.dtype, of_weight: torch.dtype, grad: bool, autocast: bool) -> None:
    x, weight = torch.randn(3, 5, 33).to(dtype), torch.randn(33).to(of_weight)
    wanted = reference(x, weight)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = rms_norm(x, weight)
    assert got.dtype == wanted.dtype == torch.promote_types(dtype, of_weight)
    tight = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(got, wanted, rtol=tight, atol=tight)


def test_tokens_of_zeros_and_of_large_numbers() -> None:
    x = torch.stack([torch.zeros(8), torch.full((8,), 1e18)])
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x), torch.stack([torch.zeros(8), torch.ones(8)]))


def test_gradients() -> None:
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *t: rms_norm(*t), (x, weight))


def test_a_weight_an_item() -> None:
    x, weights = torch.randn(4, 6), torch.randn(3, 6)
    with torch.no_grad():
        each = torch.stack([rms_norm(x, weight) for weight in weights])
        torch.testing.assert_close(vmap(lambda weight: rms_norm(x, weight))(weights), each)
