"""Fixed sines and cosines (arXiv 1706.03762, section 3.5; over two axes as in MoCo v3, arXiv 2104.02057)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...context import NOTHING, Context
from ...errors import BadSpec
from .position import Position


def sine_table(places: Tensor, dim: int, base: float) -> Tensor:
    """Sines then cosines of `places` (...,) at dim / 2 falling frequencies: (..., dim)."""
    rates = base ** (-torch.arange(dim // 2, device=places.device, dtype=torch.float32) / (dim // 2))
    angles = places[..., None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def alternating_sines(count: int, dim: int, base: float = 10000.0) -> Tensor:
    """(count, dim), the first Transformer's table: sine and cosine of each frequency side by side."""
    rates = base ** (-(torch.arange(dim, dtype=torch.float64) // 2 * 2) / dim)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    even = torch.arange(dim) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos()).to(torch.get_default_dtype())


class SinCos(Position):
    """Sines and cosines of each axis's coordinate, channels shared equally between axes; any size, no parameters."""

    EXAMPLES = ({}, {"base": 100.0})

    def __init__(self, dim: int, *, base: float = 10000.0, grid: tuple[int, ...] = ()) -> None:
        super().__init__()
        axes = max(1, len(grid))
        if dim % (2 * axes):
            raise BadSpec(f"sincos over {axes} axes needs a width that is a multiple of {2 * axes}, got {dim}")
        self.axes, self.base = axes, base

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        dim = x.shape[-1]
        if self.axes == 1:
            if ctx.prefix:
                grid = self(x[:, ctx.prefix :], ctx.but(prefix=0))
                return torch.cat([x[:, : ctx.prefix], grid], dim=1)
            steps = torch.arange(x.shape[1], device=x.device)
            places = ctx.positions if ctx.positions is not None else steps
            if ctx.positions is None and ctx.bounds is not None:
                places = steps - ctx.bounds[torch.bucketize(steps, ctx.bounds[1:], right=True)]
            return x + sine_table(places, dim, self.base).to(x.dtype)
        grid = ctx.grid if x.dim() == 3 else tuple(x.shape[1:-1])
        axes = torch.meshgrid(*(torch.arange(size, device=x.device) for size in grid), indexing="ij")
        table = torch.cat([sine_table(axis, dim // self.axes, self.base) for axis in axes], dim=-1).to(x.dtype)
        if x.dim() > 3:
            return x + table
        rows = table.flatten(0, -2)
        return x + torch.cat([rows.new_zeros(ctx.prefix, dim), rows])
