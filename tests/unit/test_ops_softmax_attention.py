"""Softmax attention in its forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from formery.ops import softmax_attention as op
from formery.ops.softmax_attention import by_products, fused, reference, softmax_attention


def drawn(
    batch: int = 2,
    heads: int = 3,
    length: int = 20,
    keys: int = 17,
    values: int = 6,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = (batch, length, heads, 8), (batch, keys, heads, 8), (batch, keys, heads, values)
    return [torch.randn(s, generator=draw, dtype=torch.float64).to(dtype).transpose(1, 2) for s in shapes]


@pytest.mark.parametrize("shape", [None, (20, 17), (3, 20, 17), (1, 3, 20, 17), (2, 1, 20, 17)])
def test_forms_are_the_definition(shape: tuple[int, ...] | None) -> None:
    q, k, v = drawn()
    mask = None if shape is None else torch.randn(shape, dtype=torch.float64)
    expected = reference(q, k, v, mask, 0.3)
    torch.testing.assert_close(by_products(q, k, v, mask, 0.3), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused(q, k, v, mask, 0.3), expected, rtol=1e-10, atol=1e-10)


def test_gradients_are_the_definitions() -> None:
    given = [t.detach().requires_grad_() for t in drawn()]
    ours, expected = (
        torch.autograd.grad(f(*given, None, 0.3).square().sum(), given) for f in (softmax_attention, reference)
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "products"),
    [
        ({"dtype": torch.bfloat16}, True),
        ({"dtype": torch.bfloat16, "values": 8}, True),
        ({"dtype": torch.float32}, True),
        ({"dtype": torch.float32, "values": 8}, False),
        ({"dtype": torch.bfloat16, "length": 1}, False),
        ({"dtype": torch.bfloat16, "keys": 600}, False),
        ({"dtype": torch.bfloat16, "batch": 0}, False),
    ],
)
def test_which_form_is_taken(given: dict[str, object], products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(op, "by_products", lambda *args: taken.append("products") or by_products(*args))
    q, k, v = drawn(**given)  # type: ignore[arg-type]
    with torch.inference_mode():
        y = softmax_attention(q, k, v, None, 0.3)
        exact = reference(q.double(), k.double(), v.double(), None, 0.3)
    assert bool(taken) is products
    assert y.dtype == q.dtype
    assert len(q) == 0 or (y.double() - exact).norm() < 0.02 * exact.norm()
    taken.clear()
    softmax_attention(q, k, v, None, 0.3)
    assert not taken, "gradients go by torch's"
    with torch.inference_mode():
        softmax_attention(q, k, v, torch.ones(q.shape[2], k.shape[2], dtype=torch.bool), 0.3)
    assert not taken, "a mask that says where to look is torch's to read"


def test_nothing_handed_in_is_changed() -> None:
    q, k, v = drawn(dtype=torch.bfloat16)
    mask = torch.zeros(3, 20, 17, dtype=torch.bfloat16)
    before = [t.clone() for t in (q, k, v, mask)]
    with torch.inference_mode():
        by_products(q, k, v, mask, 0.3)
    assert all(torch.equal(a, b) for a, b in zip((q, k, v, mask), before, strict=True))
