"""Depthwise convolutions of maps: both forms are one, in pieces too, and the choice takes the one it should."""

from __future__ import annotations

import pytest
import torch

from formery.ops import depthwise as ops


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("size", [3, 13])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_forms_agree(size: int, dilation: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 9, 7, 6, dtype=torch.float64)
    weight = torch.randn(6, 1, size, size, dtype=torch.float64)
    shift = torch.randn(6, dtype=torch.float64) if bias else None
    wanted = ops.reference(x, weight, shift, dilation)
    assert wanted.shape == x.shape
    for piece in (1, 2 * x[0].numel() * 8, 1 << 30):
        monkeypatch.setattr(ops, "PIECE", piece)
        found = ops.as_planes(x.mT.contiguous().mT, weight, shift, dilation)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        assert found.is_contiguous()


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes for large kernels without gradients; whoever needs gradients gets the plain convolution."""
    taken: list[int] = []
    whole = ops.as_planes
    monkeypatch.setattr(ops, "as_planes", lambda x, weight, *rest: taken.append(1) or whole(x, weight, *rest))
    x = torch.randn(1, 5, 5, 2)
    for size in (7, 13):
        weight = torch.randn(2, 1, size, size, requires_grad=True)
        ops.depthwise(x, weight).sum().backward()
        assert not taken
        with torch.no_grad():
            torch.testing.assert_close(ops.depthwise(x, weight), ops.reference(x, weight, None))
            assert ops.depthwise(x[:0], weight).shape == (0, 5, 5, 2)
        assert taken == [1] * (size == 13)
