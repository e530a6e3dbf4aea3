"""Dilated convolutions along a sequence: the fast form is the definition, for any split and any tail."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from formery.ops.temporal_convolution import macs, receptive_field, reference, temporal_convolution

pytestmark = pytest.mark.usefixtures("poisoned")


def draw(length: int, width: int, groups: int, tail: int | None) -> list[Tensor | None]:
    shapes = [(2, length, 6), (4, 6 // groups, width), (4,), None if tail is None else (2, tail, 6)]
    return [None if s is None else torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]


@pytest.mark.parametrize(("width", "dilation"), [(1, 1), (3, 1), (3, 2), (2, 5)])
@pytest.mark.parametrize("length", [0, 1, 4, 13])
@pytest.mark.parametrize("tail", [None, 0, 1, 20])
@pytest.mark.parametrize("groups", [1, 2])
def test_values_and_gradients_are_the_definitions(
    width: int, dilation: int, length: int, tail: int | None, groups: int
) -> None:
    wait = (width - 1) * dilation
    tail = tail if tail is None else min(tail, wait)
    inputs = draw(length, width, groups, tail)
    x, weight, *others = inputs
    assert x is not None
    assert weight is not None
    got = temporal_convolution(x, weight, *others, dilation=dilation, groups=groups)
    expected = reference(x, weight, *others, dilation=dilation, groups=groups)
    torch.testing.assert_close(got, expected)
    present = [t for t in inputs if t is not None]
    losses = [(out[0].square().sum() + out[1].square().sum()) for out in (got, expected)]
    if losses[1].requires_grad:
        torch.testing.assert_close(*(torch.autograd.grad(loss, present, materialize_grads=True) for loss in losses))


@pytest.mark.parametrize(("width", "dilation"), [(1, 1), (3, 1), (4, 3)])
def test_channels_alone(width: int, dilation: int) -> None:
    """Values and gradients, first and second."""
    x, weight, bias = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(2, 9, 5), (5, 1, width), (5,)]
    )
    options: Any = {"dilation": dilation, "groups": 5}
    for tail in (None, torch.randn(2, 1, 5, dtype=torch.float64)[:, : width - 1]):
        got = temporal_convolution(x, weight, bias, tail, **options)
        expected = reference(x, weight, bias, tail, **options)
        torch.testing.assert_close(got, expected)
        losses = [out[0].square().sum() for out in (got, expected)]
        torch.testing.assert_close(*(torch.autograd.grad(loss, (x, weight, bias)) for loss in losses))
    assert torch.autograd.gradgradcheck(
        lambda x, weight: temporal_convolution(x, weight, **options)[0], (x.detach()[:, :4].requires_grad_(), weight)
    )


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 30), max_size=5), width=st.integers(1, 4), late=st.booleans())
def test_any_split_carries_on(cuts: list[int], width: int, late: bool) -> None:
    """With zeros in front, and late by what it waits for without them."""
    x, weight, bias, _ = draw(30, width, 1, None)
    assert x is not None
    assert weight is not None
    start = x.new_zeros(2, 0, 6) if late else None
    whole, last = temporal_convolution(x, weight, bias, start, dilation=2)
    edges, tail, parts = [0, *sorted(cuts), 30], start, []
    for first, end in pairwise(edges):
        y, tail = temporal_convolution(x[:, first:end], weight, bias, tail, dilation=2)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(tail, last)
    assert whole.shape[1] == 30 - (2 * (width - 1) if late else 0)


def test_figures() -> None:
    assert receptive_field(3, [1, 2, 4]) == 15
    assert macs(2, 5, torch.zeros(4, 3, 7)) == 2 * 5 * 84
