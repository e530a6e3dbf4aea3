"""What every position part is."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ...context import NOTHING, Context
from ..part import Part


class Position(Part):
    """Tells tokens where they are: added to tokens (B, *grid, C), turning queries and keys (B, H, L, D), or added to
    the scores of attention (B, H, queries, keys)."""

    acts_on: ClassVar[Literal["tokens", "queries and keys", "scores"]] = "tokens"
    longest: int | None = None
    """How many tokens of a text it has places for; None where there is no end."""

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        raise NotImplementedError
