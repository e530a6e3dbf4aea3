"""The short convolution: its fast form is its definition, for any split, and exports with a free length."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from formery.ops.short_convolution import macs, reference, short_convolution

pytestmark = pytest.mark.usefixtures("poisoned")


def draw(length: int, width: int = 4, dtype: torch.dtype = torch.float64, batch: int = 2, channels: int = 5):
    tensors = [(batch, length, channels), (channels, width), (channels,), (batch, width - 1, channels)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in tensors]


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [0, 1, 2, 9])
@pytest.mark.parametrize("given_", ["nothing", "bias", "tail", "both"])
def test_values_and_gradients_are_the_definitions(length: int, width: int, given_: str) -> None:
    x, weight, bias, tail = draw(length, width)
    bias = bias if given_ in ("bias", "both") else None
    tail = tail if given_ in ("tail", "both") else None
    inputs = [t for t in (x, weight, bias, tail) if t is not None]
    got, expected = short_convolution(x, weight, bias, tail), reference(x, weight, bias, tail)
    torch.testing.assert_close(got, expected)
    weights = [torch.randn_like(t) for t in expected]
    losses = [sum((a * b).sum() for a, b in zip(out, weights, strict=True)) for out in (got, expected)]
    if losses[1].requires_grad:
        torch.testing.assert_close(*(torch.autograd.grad(loss, inputs, materialize_grads=True) for loss in losses))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_dtypes(dtype: torch.dtype, tolerance: float) -> None:
    x, weight, bias, tail = (t.detach() for t in draw(9, dtype=dtype))
    y, new_tail = short_convolution(x, weight, bias, tail)
    assert y.dtype == new_tail.dtype == dtype
    expected, _ = reference(x.double(), weight.double(), bias.double(), tail.double())
    assert (y.double() - expected).abs().max() <= tolerance * expected.abs().max()


@given(cuts=st.lists(st.integers(0, 12), max_size=4), width=st.integers(1, 5))
def test_any_split_carries_on(cuts: list[int], width: int) -> None:
    x, weight, bias, _ = (t.detach() for t in draw(12, width))
    whole, last = short_convolution(x, weight, bias)
    edges, tail, parts = [0, *sorted(cuts), 12], None, []
    for start, end in pairwise(edges):
        y, tail = short_convolution(x[:, start:end], weight, bias, tail)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(tail, last)


def test_the_tail_holds_no_more_than_itself() -> None:
    x, weight, _, _ = draw(50)
    _, tail = short_convolution(x.detach(), weight.detach())
    assert tail.untyped_storage().nbytes() == tail.numel() * tail.element_size()


def test_exports_with_free_batch_and_length() -> None:
    class Convolve(torch.nn.Module):
        def forward(self, x, weight, bias, tail):  # type: ignore[no-untyped-def]
            return short_convolution(x, weight, bias, tail)

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    example = tuple(t.detach() for t in draw(7, dtype=torch.float32))
    program = torch.export.export(
        Convolve(), example, dynamic_shapes=({0: batch, 1: length}, None, None, {0: batch})
    ).module()
    for size in (1, 3, 20):
        x, weight, bias, tail = (t.detach() for t in draw(size, dtype=torch.float32, batch=1))
        torch.testing.assert_close(program(x, weight, bias, tail), reference(x, weight, bias, tail))


def test_macs() -> None:
    assert macs(2, 3, 5, 4) == 120
