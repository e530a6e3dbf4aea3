"""Leaky integrate and fire: the fast form is its definition, gradients included, for any split."""

from __future__ import annotations

import pytest
import torch

from formery.ops.leaky_fire import exported, leaky_fire, reference

pytestmark = pytest.mark.usefixtures("poisoned")


def draw(length: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        (2 * torch.randn(2, length, 5, dtype=dtype)).requires_grad_(),
        torch.rand(2, 5, dtype=dtype).requires_grad_(),
    )


@pytest.mark.parametrize("length", [0, 1, 2, 17])
@pytest.mark.parametrize(("threshold", "tau"), [(1.0, 2.0), (0.4, 1.5)])
def test_values_and_gradients_are_the_definitions(length: int, threshold: float, tau: float) -> None:
    x, w = draw(length)
    got, expected = leaky_fire(x, w, threshold, tau), reference(x, w, threshold, tau)
    torch.testing.assert_close(got, expected)
    if length:
        assert 0 < got[0].mean() < 1 or length < 3
        weights = [torch.randn_like(t) for t in expected]
        losses = [sum((a * b).sum() for a, b in zip(out, weights, strict=True)) for out in (got, expected)]
        torch.testing.assert_close(*(torch.autograd.grad(loss, (x, w)) for loss in losses))
        with torch.no_grad():
            torch.testing.assert_close(exported(x, w, threshold, tau), expected)


def test_by_hand() -> None:
    """Two halves make the neuron fire; after that it starts from nothing."""
    x = torch.tensor([1.0, 2.0, 1.0, 3.0, 0.0]).view(1, 5, 1)
    spikes, potentials = leaky_fire(x)
    assert spikes.flatten().tolist() == [0, 1, 0, 1, 0]
    assert potentials.flatten().tolist() == [0.5, 0, 0.5, 0, 0]


def test_any_split_carries_on() -> None:
    x, w = (t.detach() for t in draw(13))
    whole, last = leaky_fire(x, w)
    parts = []
    for chunk in x.split([4, 1, 0, 8], dim=1):
        spikes, potentials = leaky_fire(chunk, w)
        parts.append(spikes)
        w = torch.cat([w[:, None], potentials], dim=1)[:, -1]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(w, last[:, -1])


def test_dtypes_and_learning() -> None:
    """Half precision spikes are whole numbers, potentials float32; the surrogate leads where a neuron should fire."""
    x, _ = draw(9, torch.bfloat16)
    spikes, potentials = leaky_fire(x)
    assert (spikes.dtype, potentials.dtype) == (torch.bfloat16, torch.float32)
    quiet = torch.full((1, 6, 1), 0.9, requires_grad=True)
    spikes, _ = leaky_fire(quiet)
    assert not spikes.any()
    (gradient,) = torch.autograd.grad(spikes.sum(), quiet)
    assert (gradient > 0).all()
