"""The short convolution's Triton form is the definition, with and without bias, tail and SiLU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery.ops.kernels.short_convolution import fused, plain
from formery.ops.short_convolution import reference
from tests.interpreted.forms import far

pytestmark = pytest.mark.usefixtures("poisoned")
Inputs = list[Tensor | None]


def draw(length: int, channels: int = 5, width: int = 4, batch: int = 2, dtype: torch.dtype = torch.float32) -> Inputs:
    """x, weight, bias, tail."""
    shapes = (batch, length, channels), (channels, width), (channels,), (batch, width - 1, channels)
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in shapes]


def activated(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor | None, silu: bool) -> tuple[Tensor, Tensor]:
    y, new = reference(x, weight, bias, tail)
    return (F.silu(y) if silu else y), new


def everything(form: Callable[..., tuple[Tensor, Tensor]], inputs: Inputs) -> tuple[Tensor, ...]:
    """Values and gradients."""
    leaves = [None if x is None else x.clone().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in outputs]
    return *outputs, *torch.autograd.grad(outputs, [x for x in leaves if x is not None], weights)


def assert_same(inputs: Inputs, silu: bool, values: float = 2e-6) -> None:
    exact = [None if x is None else x.double() for x in inputs]
    expected = everything(lambda *x: activated(*x, silu), exact)
    for got, wanted in zip(everything(lambda *x: fused(*x, silu=silu), inputs), expected, strict=True):
        assert got.shape == wanted.shape
        assert not wanted.numel() or far(got, wanted) <= values


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("length", "width"), [(1, 4), (2, 4), (37, 4), (20, 1), (18, 9)])
def test_values_and_gradients(length: int, width: int, silu: bool) -> None:
    x, weight, bias, tail = draw(length, width=width)
    assert_same([x, weight, bias if silu else None, tail], silu)


def test_many_channels_with_a_bias_alone() -> None:
    assert_same(draw(18, channels=150, batch=1), False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)], ids=str)
def test_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    inputs = draw(18, dtype=dtype)
    assert fused(*inputs)[0].dtype == dtype  # type: ignore[arg-type]
    assert_same(inputs, True, 2 * tolerance)


def test_without_a_tail_it_starts_from_zeros() -> None:
    x, weight, bias, tail = draw(5)
    assert tail is not None
    torch.testing.assert_close(fused(x, weight, bias), fused(x, weight, bias, torch.zeros_like(tail)))  # type: ignore[arg-type]


def test_gradients_of_gradients() -> None:
    inputs = [x.double().requires_grad_() for x in draw(3, channels=2, width=2, batch=1) if x is not None]
    exact = activated(*inputs, True)[0]
    torch.testing.assert_close(plain(*inputs, True), exact)
    wide = [x.detach().float().requires_grad_() for x in inputs]

    def second(y: Tensor, given: list[Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(y.square().sum(), given, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), given)

    for got, wanted in zip(second(fused(*wide, silu=True)[0], wide), second(exact, inputs), strict=True):
        assert far(got, wanted) <= 1e-5
