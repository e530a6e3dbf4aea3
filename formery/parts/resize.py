"""Tensors bound to a resolution, carried over to another one."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, ...]
Mode = Literal["bicubic", "bilinear"]


def resize_grid(table: Tensor, old: Grid, new: Grid, *, antialias: bool = True, mode: Mode = "bicubic") -> Tensor:
    """A table (*old, C) of positions at the grid `new`: by `mode` on maps (antialiased or not), linear on others."""
    free = not all(isinstance(n, int) for n in new)
    if not free and old == new:  # an exporter that leaves sizes open must not take them for these
        return table
    if free and len(old) == 2 and antialias:
        return by_products(table, old, new, mode)
    maps = table.movedim(-1, 0)[None].float()
    if len(old) == 2:
        resized = F.interpolate(maps, size=new, mode=mode, antialias=antialias, align_corners=False)
    else:
        resized = F.interpolate(maps, size=new, mode="linear" if len(old) == 1 else "trilinear", align_corners=False)
    return resized[0].movedim(0, -1).to(table.dtype)


def by_products(table: Tensor, old: Grid, new: Grid, mode: Mode) -> Tensor:
    """What antialiased interpolation gives, as products with a matrix an axis: sizes may stay open in an exported
    graph."""
    rows, columns = (_weights(n, m, table, mode) for n, m in zip(old, new, strict=True))
    return torch.einsum("ij,jkc,lk->ilc", rows, table.float(), columns).to(table.dtype)


def _weights(old: int, new: int, like: Tensor, mode: Mode) -> Tensor:
    """(new, old) weights of Keys' cubic kernel (a = -0.5) or of a triangle, by the places of the coarser grid."""
    scale = torch.full((), old, dtype=torch.float32, device=like.device) / new
    centres = (torch.arange(new, dtype=torch.float32, device=like.device) + 0.5) * scale
    places = torch.arange(old, dtype=torch.float32, device=like.device) + 0.5
    x = ((places - centres[:, None]) / scale.clamp(min=1)).abs()
    if mode == "bicubic":
        near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
        weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    else:
        weights = (1 - x).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


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
