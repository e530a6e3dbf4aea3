"""A learned number for each distance between two places, whichever lies before the other (LeViT, arXiv 2104.01136,
section 4.2; EfficientFormer, arXiv 2206.01191)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from ...errors import BadSpec
from ...ops.remembered import Remembered
from ..part import Resize
from ..resize import resize_grid
from .offset_bias import offsets
from .score_bias import ScoreBias


def distance_numbers(grid: Sequence[int], stride: int = 1) -> Tensor:
    """(queries, keys) the number of the distance in raster order over `grid`, whose places are the keys; queries stand
    on every `stride`-th of them along each axis.

    That is the order in which the distances are first seen, queries outer: the first query, in the corner, sees each
    distance once, along the raster.
    """
    keys, queries = (
        torch.stack(torch.meshgrid(*(torch.arange(0, n, step) for n in grid), indexing="ij"), dim=-1).flatten(0, -2)
        for step in (1, stride)
    )
    steps = [prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return ((queries[:, None] - keys).abs() * torch.tensor(steps)).sum(-1)


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


class DistanceTable(ScoreBias):
    """`table` (distances, heads): row |dy| W + |dx| on a grid of H x W; any number of axes.

    With `stride` the queries stand on every so-many-th place alone. Another grid's bias comes from the resized table.
    """

    EXAMPLES = ({}, {"stride": 2})
    resizes: Mapping[str, Resize] = {"table": resize_distances}
    undecayed = ("table",)
    numbers: Tensor

    def __init__(self, dim: int, *, stride: int = 1, std: float = 0.02, grid: tuple[int, ...]) -> None:
        super().__init__()
        if not grid or not all(grid):
            raise BadSpec("a distance_table has rows for a map of known size; give the stem its size")
        if stride < 1:
            raise BadSpec(f"stride is at least 1, got {stride}")
        self.heads, self.grid, self.stride = dim, tuple(grid), stride
        self.table = nn.Parameter(torch.empty(prod(grid), dim))
        nn.init.trunc_normal_(self.table, std=std) if std else nn.init.zeros_(self.table)
        self.register_buffer("numbers", distance_numbers(grid, stride), persistent=False)
        self._gathered = Remembered(self._gather)

    def reset_derived(self) -> None:
        if not self.table.is_meta:  # the buffer itself may still be, of a model that was built without values
            self.numbers = distance_numbers(self.grid, self.stride).to(self.table.device)

    def _gather(self, table: Tensor) -> Tensor:
        return _picked(table, self.numbers).contiguous()

    def bias(self, grid: tuple[int, ...] | None = None) -> Tensor:
        """(heads, queries, keys)."""
        if grid is None or tuple(grid) == self.grid:
            return self._gathered(self.table)
        numbers = distance_numbers(grid, self.stride).to(self.table.device)
        return _picked(resize_distances(self.table, self.grid, tuple(grid)), numbers)


def _picked(table: Tensor, numbers: Tensor) -> Tensor:
    return table[numbers.flatten()].unflatten(0, numbers.shape).permute(2, 0, 1)
