"""Cutting maps into groups: every form of it, the masks, and attention inside groups, against their definitions."""

from __future__ import annotations

import itertools

import pytest
import torch

from formery.ops.grouped_attention import grouped_attention, reference
from formery.ops.token_groups import (
    APART,
    FILLING,
    Cut,
    arrangement,
    back,
    for_map,
    is_whole,
    mask_of,
    merge,
    order,
    partition,
    regions,
)

CUTS = [
    Cut(4),
    Cut(3, shift=1),
    Cut(2, interval=3),
    Cut(3, interval=2, shift=4),
    Cut(4, front=3),
    Cut(5, shift=2, seen=True),
]
GRIDS = [(8, 8), (12, 6), (7, 11), (13, 5)]
CASES = list(itertools.product(CUTS, GRIDS))


@pytest.mark.parametrize(("cut", "grid"), CASES, ids=str)
def test_there_and_back(cut: Cut, grid: tuple[int, int]) -> None:
    x = torch.randn(2, *grid, 3)
    assert torch.equal(merge(partition(x, cut), cut, grid), x)


@pytest.mark.parametrize(("cut", "grid"), CASES, ids=str)
def test_numbers_say_what_partition_does(cut: Cut, grid: tuple[int, int]) -> None:
    x = torch.randn(2, *grid, 3)
    rows = torch.cat([x.flatten(1, 2), torch.zeros(2, 1, 3)], dim=1)
    numbers = order(cut, grid)
    assert torch.equal(rows[:, numbers].reshape(-1, cut.size**2, 3), partition(x, cut))
    assert torch.equal(numbers[back(cut, grid)], torch.arange(grid[0] * grid[1]))


@pytest.mark.parametrize(("cut", "grid"), CASES, ids=str)
def test_an_arrangement_says_it_for_a_batch(cut: Cut, grid: tuple[int, int]) -> None:
    x, size = torch.randn(3, *grid, 2), cut.size**2
    to = arrangement(3, grid, cut)
    rows = torch.cat([x.flatten(0, 2), torch.zeros(1, 2)])
    groups = rows[to.order].view(-1, size, 2)
    assert torch.equal(groups.flatten(0, 1)[to.back].view_as(x), x)
    masks = mask_of(regions(cut, grid))
    given = torch.zeros(len(groups), size, size)
    if to.mask is not None:
        given[to.num_free :] = to.mask[:, 0].repeat(3, 1, 1)
    wanted = {(tuple(g.flatten().tolist()), tuple(m.flatten().tolist())) for g, m in zip(
        partition(x, cut), masks.repeat(3, 1, 1), strict=True
    )}  # fmt: skip
    got = {(tuple(g.flatten().tolist()), tuple(m.flatten().tolist())) for g, m in zip(groups, given, strict=True)}
    assert got == wanted
    assert to.num_free == 3 * int((masks == 0).all(-1).all(-1).sum())


def test_groups_at_a_distance() -> None:
    """A group holds every third token of a map of 6 x 6."""
    numbers = partition(torch.arange(36).view(1, 6, 6, 1), Cut(2, interval=3))[:, :, 0]
    assert numbers[0].tolist() == [0, 3, 18, 21]
    assert numbers[4].tolist() == [7, 10, 25, 28]


def test_masks_keep_apart_what_is_no_neighbour() -> None:
    cut, grid = Cut(4, shift=2), (8, 8)
    numbers = regions(cut, grid)
    mask = mask_of(numbers)
    rows = partition(torch.arange(64).view(1, 8, 8, 1), cut)[:, :, 0]
    near = (rows[:, :, None] // 8 - rows[:, None] // 8).abs().maximum((rows[:, :, None] % 8 - rows[:, None] % 8).abs())
    assert torch.equal(mask == 0, near < 4)
    assert set(mask.unique().tolist()) == {0.0, APART}


def test_filling_is_seen_by_filling_alone() -> None:
    mask, filling = mask_of(regions(Cut(4), (5, 6))), regions(Cut(4), (5, 6)) == FILLING
    assert int(filling.sum()) == 64 - 30
    assert torch.equal(mask == -torch.inf, filling[:, :, None] != filling[:, None])
    assert not mask_of(regions(Cut(4, seen=True), (5, 6))).any()


def test_a_map_of_one_window_is_not_shifted() -> None:
    cut = Cut(4, shift=2)
    assert for_map(cut, (4, 4)).shift == for_map(cut, (3, 9)).shift == for_map(cut, (9, 4)).shift == 0
    assert for_map(cut, (5, 5)).shift == 2
    assert for_map(Cut(4, front=2), (8, 4)).front == 0
    assert is_whole(Cut(4), (8, 4))
    assert not is_whole(cut, (8, 8))
    assert not is_whole(Cut(4), (8, 5))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_in_every_form(masked: bool, biased: bool) -> None:
    """Values and gradients of the fused form are the definition's."""
    torch.manual_seed(0)
    mask = mask_of(regions(Cut(3, shift=1), (6, 8)))[:, None].double() if masked else None
    groups = 6
    leaves = [torch.randn(2 * groups, 2, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = torch.randn(2, 9, 9, dtype=torch.float64, requires_grad=True) if biased else None
    outputs = [form(*leaves, bias, mask, 0.5) for form in (reference, grouped_attention)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
    weights, tensors = torch.randn_like(outputs[0]), [*leaves, *([bias] if bias is not None else [])]
    gradients = [torch.autograd.grad((y * weights).sum(), tensors) for y in outputs]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_masks_of_groups_compile() -> None:
    cut = Cut(size=4, shift=2)

    def mask(x: torch.Tensor) -> torch.Tensor:
        return x + mask_of(regions(cut, (10, 8)))

    x = torch.zeros(1)
    torch.testing.assert_close(torch.compile(mask)(x), mask(x))
