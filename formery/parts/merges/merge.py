"""What every merge is."""

from __future__ import annotations

from torch import Tensor

from ...context import NOTHING, Context
from ..part import Part
from ..strides import PerAxis


class Merge(Part):
    """Maps (B, *grid, dim) to (B, *smaller grid, out). Built as `Merge(dim, out, *, option=default, ...)`."""

    grids: tuple[int, ...] = (2,)
    """Ranks of the grids it takes."""
    stride: int | PerAxis = 2
    """Old tokens to a new one, along each axis."""

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The grid after it."""
        raise NotImplementedError

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        raise NotImplementedError
