"""What every score bias is that depends on where query and key stand to each other alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ...errors import BadSpec
from ...ops.remembered import Remembered
from .score_bias import ScoreBias


def offsets(grid: Sequence[int]) -> tuple[int, ...]:
    """How many offsets there are along each axis of a grid: from -(n - 1) to n - 1."""
    return tuple(2 * n - 1 for n in grid)


def offset_rows(grid: Sequence[int]) -> Tensor:
    """(offsets, axes) the offsets query - key of a grid themselves, in raster order."""
    return places(offsets(grid)) - torch.tensor([n - 1 for n in grid])


def offset_numbers(grid: Sequence[int]) -> Tensor:
    """(N, N) the number of the offset query - key in raster order over `offsets(grid)`, for the N places of `grid`."""
    here = places(grid)
    between = here[:, None] - here + torch.tensor([n - 1 for n in grid])
    steps = [prod(offsets(grid)[axis + 1 :]) for axis in range(len(grid))]
    return (between * torch.tensor(steps)).sum(-1)


def places(grid: Sequence[int], stride: int = 1) -> Tensor:
    """(N, axes) every `stride`-th place of a grid along each axis, in raster order."""
    axes = (torch.arange(0, n, stride) for n in grid)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


class OffsetBias(ScoreBias):
    """A row of heads for each offset, that of a query dy rows below and dx columns right of its key at number
    (dy + H - 1) (2 W - 1) + dx + W - 1 in a window of H x W; any number of axes. `numbers_of` may number them
    otherwise, and let fewer places ask (`stride`)."""

    numbers: Tensor

    def __init__(self, dim: int, grid: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        if not all(grid):
            raise BadSpec("a bias of scores is that of a window or a map of known size; give the stem its size")
        self.heads, self.grid, self.stride = dim, tuple(grid), stride
        self.register_buffer("numbers", self.numbers_of(self.grid), persistent=False)
        self._gathered = Remembered(self._gather)

    def reset_derived(self) -> None:
        self.numbers = self.numbers_of(self.grid).to(next(self.parameters()).device)

    def numbers_of(self, grid: tuple[int, ...]) -> Tensor:
        """(queries, keys) the row of each pair of a grid."""
        return offset_numbers(grid)

    def rows(self, grid: tuple[int, ...]) -> Tensor:
        """(rows, heads) of a grid."""
        raise NotImplementedError

    def _gather(self, *weights: Tensor) -> Tensor:
        return _paired(self.rows(self.grid), self.numbers)

    def bias(self, grid: tuple[int, ...] | None = None) -> Tensor:
        if grid is None or tuple(grid) == self.grid:
            return self._gathered(*self.parameters())
        return _paired(self.rows(tuple(grid)), self.numbers_of(tuple(grid)).to(self.numbers.device))


def _paired(rows: Tensor, numbers: Tensor) -> Tensor:
    """(heads, queries, keys) of rows (rows, heads)."""
    return rows[numbers.flatten()].unflatten(0, numbers.shape).permute(2, 0, 1).contiguous()
