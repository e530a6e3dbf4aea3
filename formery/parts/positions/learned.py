"""A learned table of positions (ViT, arXiv 2010.11929; GPT-2)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context
from ...errors import CannotRun
from ..part import Resize, idle
from ..resize import resize_grid
from .position import Position
from .sincos import alternating_sines


class Learned(Position):
    """One vector a place of the grid, and one a prefix token (`prefix` of them have one), added to the tokens.

    Text: `grid` is (longest length,) and any shorter length is fine. Maps of another size get the table resized by
    `resize`, with or without `antialias`. The table begins as a normal draw of `std`, or with `init` "sine" as sines
    and cosines of the places in raster order, those of the prefix first; `frozen`, it is not learned.
    """

    EXAMPLES = ({}, {"init": "sine", "frozen": True, "resize": "bilinear", "antialias": False})
    undecayed = ("table", "prefix")

    def __init__(
        self,
        dim: int,
        *,
        prefix: int = 0,
        init: Literal["normal", "sine"] = "normal",
        std: float = 0.02,
        frozen: bool = False,
        resize: Literal["bicubic", "bilinear"] = "bicubic",
        antialias: bool = True,
        grid: tuple[int, ...],
    ) -> None:
        super().__init__()
        if init == "sine":
            idle(Learned, "where the table begins as sines", std=std)
        self.grid = grid
        self.longest = grid[0] if len(grid) == 1 else None
        self.table = nn.Parameter(torch.empty(*grid, dim), requires_grad=not frozen)
        self.prefix = nn.Parameter(torch.empty(prefix, dim), requires_grad=not frozen) if prefix else None
        if frozen:
            self.frozen = ("table", "prefix") if prefix else ("table",)
        self.resized = partial(resize_grid, mode=resize, antialias=antialias)
        self.resizes: Mapping[str, Resize] = {"table": self.resized}
        if init == "sine":
            self._draw_sines(prefix)
            return
        for tensor in (self.table, self.prefix):
            if tensor is not None:
                nn.init.trunc_normal_(tensor, std=std) if std else nn.init.zeros_(tensor)

    @torch.no_grad()
    def _draw_sines(self, prefix: int) -> None:
        first, rest = alternating_sines(prefix + prod(self.grid), self.table.shape[-1]).tensor_split([prefix])
        self.table.copy_(rest.view_as(self.table))
        if self.prefix is not None:
            self.prefix.copy_(first)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        if len(self.grid) == 1:
            return self._along_sequence(x, ctx)
        grid = ctx.grid if x.dim() == 3 else tuple(x.shape[1:-1])
        table = self.resized(self.table, self.grid, grid).to(x.dtype)
        if x.dim() > 3:
            return x + table
        rows = table.flatten(0, -2)
        if ctx.prefix:
            first = x.new_zeros(ctx.prefix, x.shape[-1]) if self.prefix is None else self.prefix
            rows = torch.cat([first, rows])
        return x + rows

    def _along_sequence(self, x: Tensor, ctx: Context) -> Tensor:
        if ctx.prefix:
            front = x[:, : ctx.prefix] if self.prefix is None else x[:, : ctx.prefix] + self.prefix
            return torch.cat([front, self._along_sequence(x[:, ctx.prefix :], ctx.but(prefix=0))], dim=1)
        if not torch.compiler.is_compiling() and not x.is_meta:
            self._check_reach(x.shape[1], ctx)
        if ctx.positions is not None:
            return x + self.table[ctx.positions]
        if ctx.bounds is not None:
            steps = torch.arange(x.shape[1], device=x.device)
            return x + self.table[steps - ctx.bounds[torch.bucketize(steps, ctx.bounds[1:], right=True)]]
        return x + self.table[: x.shape[1]]

    def _check_reach(self, length: int, ctx: Context) -> None:
        """CannotRun where a token stands beyond the table: in the text, in its stream, or in its packed sequence."""
        if ctx.positions is not None:
            first, last = (int(end) for end in ctx.positions.aminmax()) if ctx.positions.numel() else (0, -1)
            if first < 0:
                raise CannotRun(f"positions are 0 or more, got {first}")
            length = last + 1
        elif ctx.bounds is not None:
            length = int(ctx.bounds.diff().max()) if len(ctx.bounds) > 1 else 0
        if length > self.grid[0]:
            raise CannotRun(f"the learned positions end at {self.grid[0]} tokens, got {length}; set a larger length")
