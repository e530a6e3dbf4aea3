"""Tokens worked on in pieces, and strided convolutions as products: the same values, and only where they may be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from formery.ops import by_rows as rows
from formery.ops import map_convolution as maps
from formery.ops.by_rows import by_rows
from formery.ops.map_convolution import as_product, map_convolution, reference
from formery.parts.activations import ACTIVATIONS
from formery.parts.channels.mlp import MLP
from formery.parts.channels.swiglu import SwiGLU
from formery.parts.dense import Dense, activated
from formery.parts.merges.conv import ConvMerge
from formery.parts.stems.patches import Patches


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of at most 4 KB."""
    monkeypatch.setattr(rows, "LARGE", 1 << 12)
    monkeypatch.setattr(rows, "PIECE", 1 << 12)


@pytest.mark.parametrize("part", [MLP(8), MLP(8, activation="relu2"), SwiGLU(8)])
@pytest.mark.parametrize("shape", [(3, 67, 8), (2, 9, 11, 8), (8,), (0, 8)])
def test_pieces_give_the_whole(small: None, part: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    part = part.double()
    whole = part(x)  # with gradients, in one piece
    with torch.no_grad():
        torch.testing.assert_close(part(x), whole, rtol=1e-12, atol=1e-12)
        assert part(x.transpose(0, -2) if x.dim() > 2 else x).shape[-1] == 8


def test_pieces_are_small_and_even(small: None) -> None:
    seen: list[int] = []

    def work(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.repeat(1, 2)

    with torch.no_grad():
        y = by_rows(work, torch.ones(10, 30, 3), 16)
    assert y.shape == (10, 30, 6)
    assert sum(seen) == 300
    assert max(seen) * 16 * 4 <= 1 << 12
    assert max(seen) - min(seen) < len(seen)


def test_in_one_piece_where_gradients_are_asked_for(small: None) -> None:
    seen: list[torch.Size] = []
    by_rows(lambda x: seen.append(x.shape) or x, torch.ones(10, 30, 3), 16)
    assert seen == [(10, 30, 3)]


@given(
    size=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    height=st.integers(5, 12),
    width=st.integers(5, 12),
    bias=st.booleans(),
)
def test_the_product_is_the_convolution(
    size: int, stride: int, padding: int, height: int, width: int, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(size + 10 * stride)
    x, weight = (
        torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, height, width, 3), (5, 3, size, size))
    )
    offset = torch.randn(5, generator=generator, dtype=torch.float64) if bias else None
    expected = reference(x, weight, offset, stride, padding)
    torch.testing.assert_close(as_product(x, weight, offset, stride, padding), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("part", [ConvMerge(8, 12), ConvMerge(8, 12, size=2, padding=0, norm="layer", bias=False)])
def test_few_outputs_are_a_product_and_many_a_convolution(part: ConvMerge, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("as_product", "reference"):
        form = getattr(maps, name)
        monkeypatch.setattr(maps, name, lambda *args, form=form, name=name: calls.append(name) or form(*args))
    few, many = torch.randn(1, 14, 10, 8), torch.randn(2, 32, 32, 8)
    trained = part(few)
    with torch.no_grad():
        assert part.conv.weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(part(few), trained, rtol=1e-5, atol=1e-6)
        part(many)
        assert part(few[:0]).shape == (0, 7, 5, 12)
    assert calls == ["reference", "as_product", "reference", "reference"]


def test_the_kernel_lies_channels_last_and_is_saved_as_any_other() -> None:
    part, plain = ConvMerge(8, 12), nn.Conv2d(8, 12, 3, 2, 1)
    part.conv.load_state_dict(plain.state_dict())
    assert part.conv.weight.is_contiguous(memory_format=torch.channels_last)
    x = torch.randn(2, 9, 7, 8)
    with torch.no_grad():
        torch.testing.assert_close(part(x).movedim(-1, 1), plain(x.movedim(-1, 1)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(map_convolution(x, plain.weight, plain.bias, 2, 1), part(x), rtol=1e-5, atol=1e-6)


def test_patches_by_a_product_are_those_of_the_convolution() -> None:
    from formery.context import NOTHING

    stem = Patches(dim=6, size=4, img_size=16)
    images = torch.randn(2, 3, 16, 12)
    by_product, _ = stem(images, NOTHING)
    seen: list[Tensor] = []
    stem.conv.register_forward_hook(lambda module, args, output: seen.append(output))
    by_convolution, _ = stem(images, NOTHING)  # who looks at the convolution sees it work
    assert len(seen) == 1
    torch.testing.assert_close(by_product, by_convolution, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_fused_only_where_nobody_looks(name: str) -> None:
    x = torch.randn(64, 160)
    layer = Dense(160, 128)
    expected = ACTIVATIONS[name](nn.functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(activated(layer, x, name), expected, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(activated(layer, x, name), expected, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]
        seen: list[Tensor] = []
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
        activated(layer, x, name)  # type: ignore[arg-type]
        torch.testing.assert_close(seen[0], layer(x))
        replaced = nn.Sequential(nn.Linear(160, 128))
        activated(replaced, x, name)  # type: ignore[arg-type]
