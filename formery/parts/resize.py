"""Tensors bound to a resolution, carried over to another one."""

from __future__ import annotations

from math import prod
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, ...]


def resize_grid(
    table: Tensor, old: Grid, new: Grid, *, antialias: bool = True, mode: Literal["bicubic", "bilinear"] = "bicubic"
) -> Tensor:
    """A table (*old, C) of positions at the grid `new`: by `mode` on maps (antialiased or not), linear on others."""
    if old == new:
        return table
    maps = table.movedim(-1, 0)[None].float()
    if len(old) == 2:
        resized = F.interpolate(maps, size=new, mode=mode, antialias=antialias, align_corners=False)
    else:
        resized = F.interpolate(maps, size=new, mode="linear" if len(old) == 1 else "trilinear", align_corners=False)
    return resized[0].movedim(0, -1).to(table.dtype)


def resize_vector(vector: Tensor, old: Grid, new: Grid) -> Tensor:
    """A number (N,) for each token of `old`, at `new`."""
    return resize_grid(vector.unflatten(0, old)[..., None], old, new).flatten()


def resize_square(matrix: Tensor, old: Grid, new: Grid) -> Tensor:
    """A matrix (N, N) over the tokens of `old` at `new`: both axes resized as maps, rows scaled to keep their sums."""
    if old == new:
        return matrix
    rows = resize_grid(matrix.T.unflatten(0, old), old, new).flatten(0, -2).T
    both = resize_grid(rows.unflatten(0, old), old, new).flatten(0, -2)
    return both * (prod(old) / prod(new))
