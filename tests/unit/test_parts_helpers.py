"""What parts share: rows of different lengths, tensors bound to a grid, mixers on any grid."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from formery.context import Context
from formery.errors import BadSpec
from formery.ops.remembered import Remembered
from formery.parts.mixers.grids import check_grid
from formery.parts.mixers.masks import mask_of, places_of
from formery.parts.mixers.pooling import Pooling
from formery.parts.mixers.ragged import by_sequence, compacted, last_tokens
from formery.parts.resize import by_products, resize_grid, resize_square, resize_vector
from formery.parts.widths import positive, shared_width

paddings = st.integers(1, 8).flatmap(
    lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=4)
).map(lambda rows: torch.tensor(rows))  # fmt: skip


@given(paddings)
def test_padding_is_moved_out_of_the_way_and_back(padding: Tensor) -> None:
    batch, length = padding.shape
    x = torch.arange(1.0, batch * length + 1).reshape(batch, length, 1)
    moved, lengths, undo = compacted(x, padding)
    for row in range(batch):
        real = x[row][~padding[row]]
        assert lengths[row] == len(real)
        assert torch.equal(moved[row, : len(real)], real)
        assert not moved[row, len(real) :].any()
    assert torch.equal(undo(moved), x.masked_fill(padding[..., None], 0))


@given(paddings, st.integers(0, 4))
def test_the_last_tokens_of_each_row(padding: Tensor, keep: int) -> None:
    batch, length = padding.shape
    past = -torch.arange(1.0, batch * keep + 1).reshape(batch, keep, 1)
    x = torch.arange(1.0, batch * length + 1).reshape(batch, length, 1)
    moved, lengths, _ = compacted(x, padding)
    last = last_tokens(past, moved, lengths)
    for row in range(batch):
        together = torch.cat([past[row], x[row][~padding[row]]])
        assert torch.equal(last[row], together[len(together) - keep :])
    assert torch.equal(last_tokens(past, x, None), torch.cat([past, x], dim=1)[:, length:])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_packed_sequences_become_rows(lengths: list[int]) -> None:
    x = torch.arange(1.0, sum(lengths) + 1)[None, :, None]
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    seen: list[Context] = []

    def sums(rows: Tensor, ctx: Context) -> Tensor:
        seen.append(ctx)
        assert ctx.padding is not None
        return rows.masked_fill(ctx.padding[..., None], 0).cumsum(1)

    y = by_sequence(sums, x, Context(bounds=bounds, positions=torch.arange(sum(lengths)) + 100))
    expected = torch.cat([sequence.cumsum(1) for sequence in x.split(lengths, dim=1)], dim=1)
    assert torch.equal(y, expected)
    assert seen[0].bounds is None
    assert seen[0].positions is not None
    assert seen[0].positions[~seen[0].padding].tolist() == list(range(100, 100 + sum(lengths)))  # type: ignore[operator]


@given(paddings, st.integers(1, 4), st.booleans())
def test_masks_say_who_sees_whom(padding: Tensor, window: int, causal: bool) -> None:
    batch, length = padding.shape
    mask = mask_of(places_of(padding, ranks=True), length, causal=causal, window=window)
    for row in range(batch):
        rank = ((~padding[row]).cumsum(0) - 1).tolist()
        for query in range(length):
            for key in range(length):
                expected = not padding[row, key]
                if causal:
                    late = padding[row, query] or rank[key] > rank[query] or rank[key] <= rank[query] - window
                    expected = expected and not late
                assert mask[row, 0, query, key].item() is bool(expected or query == key)


def test_tables_at_another_resolution() -> None:
    ramp = torch.linspace(0, 1, 8)[:, None, None].expand(8, 6, 2)
    assert resize_grid(ramp, (8, 6), (8, 6)) is ramp
    larger = resize_grid(ramp, (8, 6), (16, 12))
    assert larger.shape == (16, 12, 2)
    assert (larger[1:] - larger[:-1] > -1e-6).all()  # still a ramp
    constant = torch.full((8, 6, 2), 3.0, dtype=torch.float64)
    for grid in ((16, 3), (5, 7), (8, 12)):
        resized = resize_grid(constant, (8, 6), grid)
        assert resized.dtype == torch.float64
        torch.testing.assert_close(resized, torch.full((*grid, 2), 3.0, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    drawn = torch.randn(8, 6, 2)
    for grid, mode in itertools.product(((8, 6), (16, 3), (3, 17), (1, 1)), ("bicubic", "bilinear")):
        products = by_products(drawn, (8, 6), grid, mode)
        torch.testing.assert_close(products, resize_grid(drawn, (8, 6), grid, mode=mode), atol=1e-5, rtol=1e-5)
    assert resize_grid(torch.randn(5, 2), (5,), (9,)).shape == (9, 2)
    assert resize_grid(torch.randn(2, 3, 4, 5), (2, 3, 4), (4, 6, 8)).shape == (4, 6, 8, 5)
    assert resize_vector(torch.arange(6.0), (2, 3), (4, 6)).shape == (24,)


@pytest.mark.parametrize("grid", [(8, 8), (6, 4), (2, 3)])
def test_matrices_over_tokens_keep_the_sums_of_their_rows(grid: tuple[int, int]) -> None:
    """Averaging stays averaging: a matrix whose rows sum to one still does."""
    mean = torch.full((16, 16), 1 / 16)
    resized = resize_square(mean, (4, 4), grid)
    tokens = grid[0] * grid[1]
    torch.testing.assert_close(resized, torch.full((tokens, tokens), 1 / tokens))
    drawn = torch.randn(16, 16).softmax(-1)
    torch.testing.assert_close(resize_square(drawn, (4, 4), grid).sum(-1), torch.ones(tokens), rtol=0.15, atol=0.15)


def test_which_mixer_takes_which_grid() -> None:
    pooling = Pooling(8)
    for rank in (0, 2):
        check_grid(pooling, rank, "pooling")
    for rank in (1, 3):
        with pytest.raises(BadSpec) as caught:
            check_grid(pooling, rank, "pooling")
        assert str(caught.value) == (
            f"mixer 'pooling' works on 2-D grids, here the grid is {rank}-D; choose another mixer"
        )


def test_sizes_are_positive() -> None:
    assert positive("hidden", 1) == 1
    with pytest.raises(BadSpec, match="hidden is at least 1, got 0"):
        positive("hidden", 0)


def test_what_follows_from_a_weight_follows_its_changes() -> None:
    weight, calls = nn.Parameter(torch.ones(3)), []
    kept = Remembered(lambda w: (calls.append(1), w * 2)[1])
    with torch.no_grad():
        assert kept(weight) is kept(weight)
        weight.add_(1)
        assert kept(weight).tolist() == [4, 4, 4]
        weight.data = torch.zeros(3)
        assert kept(weight).tolist() == [0, 0, 0]
        other = nn.Parameter(torch.zeros(3))
        assert kept(other) is not kept(weight)
    assert len(calls) == 5
    assert kept(weight).requires_grad  # nothing kept, nothing cut off
    with torch.inference_mode():
        fresh = torch.ones(3)
        assert kept(fresh).tolist() == [2, 2, 2]
        fresh.add_(1)  # no version counts this
        assert kept(fresh).tolist() == [4, 4, 4]


def test_heads_share_a_width() -> None:
    assert shared_width("head_dim", None, 12, 4) == 3
    assert shared_width("head_dim", 5, 12, 7) == 5
    for width, heads in ((None, 0), (0, 4), (-3, 4)):
        with pytest.raises(BadSpec, match=f"heads and head_dim are at least 1, got {heads} and {width}"):
            shared_width("head_dim", width, 12, heads)
