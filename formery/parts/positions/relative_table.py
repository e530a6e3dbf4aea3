"""A learned number for each offset between two places of a window (Swin, arXiv 2103.14030, equation 4)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn

from ..part import Resize
from ..resize import resize_grid
from .offset_bias import OffsetBias, offsets


def resize_offsets(table: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """A table (offsets, heads) of the window `old` at the window `new`: bicubic over the grid of offsets."""
    if old == new:
        return table
    return resize_grid(table.unflatten(0, offsets(old)), offsets(old), offsets(new), antialias=False).flatten(0, -2)


class RelativeTable(OffsetBias):
    """`table` (offsets, heads), learned. Another window's bias comes from the resized table."""

    EXAMPLES = ({},)
    resizes: Mapping[str, Resize] = {"table": resize_offsets}
    undecayed = ("table",)

    def __init__(self, dim: int, *, std: float = 0.02, grid: tuple[int, ...]) -> None:
        super().__init__(dim, grid)
        self.table = nn.Parameter(torch.empty(prod(offsets(grid)), dim))
        nn.init.trunc_normal_(self.table, std=std)

    def rows(self, grid: tuple[int, ...]) -> Tensor:
        return resize_offsets(self.table, self.grid, grid)
