"""A learned number for each offset between two places of a window (Swin, arXiv 2103.14030, equation 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from ...errors import BadSpec
from ...ops.remembered import Remembered
from ..part import Resize
from ..resize import resize_grid
from .score_bias import ScoreBias


def offsets(grid: Sequence[int]) -> tuple[int, ...]:
    """How many offsets there are along each axis of a grid: from -(n - 1) to n - 1."""
    return tuple(2 * n - 1 for n in grid)


def offset_numbers(grid: Sequence[int]) -> Tensor:
    """(N, N) the number of the offset query - key in raster order over `offsets(grid)`, for the N places of `grid`."""
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij"), dim=-1).flatten(0, -2)
    between = places[:, None] - places + torch.tensor([n - 1 for n in grid])
    steps = [prod(offsets(grid)[axis + 1 :]) for axis in range(len(grid))]
    return (between * torch.tensor(steps)).sum(-1)


def resize_offsets(table: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """A table (offsets, heads) of the window `old` at the window `new`: bicubic over the grid of offsets."""
    if old == new:
        return table
    return resize_grid(table.unflatten(0, offsets(old)), offsets(old), offsets(new), antialias=False).flatten(0, -2)


class RelativeTable(ScoreBias):
    """`table` (offsets, heads): row (dy + H - 1) (2 W - 1) + dx + W - 1 for a query dy rows below and dx columns right
    of its key, in a window of H x W; any number of axes. Another window's bias comes from the resized table.
    """

    EXAMPLES = ({},)
    resizes: Mapping[str, Resize] = {"table": resize_offsets}
    undecayed = ("table",)
    numbers: Tensor

    def __init__(self, dim: int, *, std: float = 0.02, grid: tuple[int, ...]) -> None:
        super().__init__()
        if not all(grid):
            raise BadSpec("a relative_table has rows for a window or map of known size; give the stem its size")
        self.heads, self.grid = dim, tuple(grid)
        self.table = nn.Parameter(torch.empty(prod(offsets(grid)), dim))
        nn.init.trunc_normal_(self.table, std=std)
        self.register_buffer("numbers", offset_numbers(grid), persistent=False)
        self._gathered = Remembered(self._gather)

    def reset_derived(self) -> None:
        if not self.table.is_meta:  # the buffer itself may still be, of a model that was built without values
            self.numbers = offset_numbers(self.grid).to(self.table.device)

    def _gather(self, table: Tensor) -> Tensor:
        return table[self.numbers.flatten()].unflatten(0, self.numbers.shape).permute(2, 0, 1).contiguous()

    def bias(self, grid: tuple[int, ...] | None = None) -> Tensor:
        if grid is None or tuple(grid) == self.grid:
            return self._gathered(self.table)
        numbers = offset_numbers(grid).to(self.table.device)
        table = resize_offsets(self.table, self.grid, tuple(grid))
        return table[numbers.flatten()].unflatten(0, numbers.shape).permute(2, 0, 1)
