"""What every position is that is added to the scores of attention."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ...context import NOTHING, Context
from .position import Position


class ScoreBias(Position):
    """A number for each head, query and key, added to their score before the softmax.

    Built as `ScoreBias(heads, *, option=default, ..., grid)`: the heads stand where others have their width, and `grid`
    is that of the tokens that meet: a window's, or a whole map's.
    """

    acts_on: ClassVar[Literal["tokens", "queries and keys", "scores"]] = "scores"
    heads: int
    grid: tuple[int, ...]

    def bias(self, grid: tuple[int, ...] | None = None) -> Tensor:
        """(heads, N, N) for the N tokens of `grid` in raster order, queries first; of its own grid unless given."""
        raise NotImplementedError

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        """Scores (B, heads, N, N) with the bias of the context's grid (its own where the context has none) added."""
        return x + self.bias(ctx.grid or None).to(x.dtype)
