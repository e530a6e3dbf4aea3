"""A learned number for each distance between two places, whichever lies before the other (LeViT, arXiv 2104.01136,
section 4.2; EfficientFormer, arXiv 2206.01191)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from ..part import Resize
from ..resize import resize_grid
from ..strides import Positive
from .offset_bias import OffsetBias, offsets, places


def distance_numbers(grid: Sequence[int], stride: int = 1) -> Tensor:
    """(queries, keys) the number of the distance in raster order over `grid`, whose places are the keys; queries stand
    on every `stride`-th of them along each axis.

    That is the order in which the distances are first seen, queries outer: the first query, in the corner, sees each
    distance once, along the raster.
    """
    steps = [prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return ((places(grid, stride)[:, None] - places(grid)).abs() * torch.tensor(steps)).sum(-1)


def resize_distances(table: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """A table (distances, heads) of the grid `old` at the grid `new`: what `relative_table` makes of the offsets that
    lie symmetric around 0, so that the distance 0 stays itself."""
    if old == new:
        return table
    mirrored = table.unflatten(0, old)
    for axis in range(len(old)):
        behind = mirrored.narrow(axis, 1, old[axis] - 1).flip(axis)
        mirrored = torch.cat([behind, mirrored], dim=axis)
    resized = resize_grid(mirrored, offsets(old), offsets(new), antialias=False)
    for axis, n in enumerate(new):
        resized = resized.narrow(axis, n - 1, n)
    return resized.flatten(0, -2)


class DistanceTable(OffsetBias):
    """`table` (distances, heads): row |dy| W + |dx| on a grid of H x W; any number of axes.

    With `stride` the queries stand on every so-many-th place alone. Another grid's bias comes from the resized table.
    """

    EXAMPLES = ({}, {"stride": 2})
    unseen = ("stride",)
    resizes: Mapping[str, Resize] = {"table": resize_distances}
    undecayed = ("table",)

    def __init__(self, dim: int, *, stride: Positive = 1, std: float = 0.02, grid: tuple[int, ...]) -> None:
        super().__init__(dim, grid, stride)
        self.table = nn.Parameter(torch.empty(prod(grid), dim))
        nn.init.trunc_normal_(self.table, std=std) if std else nn.init.zeros_(self.table)

    def numbers_of(self, grid: tuple[int, ...]) -> Tensor:
        return distance_numbers(grid, self.stride)

    def rows(self, grid: tuple[int, ...]) -> Tensor:
        return resize_distances(self.table, self.grid, grid)
