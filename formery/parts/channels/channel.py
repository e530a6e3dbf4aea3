"""What every channel mixer is."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ...context import NOTHING, Context, State
from ..part import Part


class Channel(Part):
    """Maps tokens (B, *grid, C) to tokens of the same shape, each token alone unless `over` says that a norm inside
    takes statistics over the grid."""

    over: ClassVar[Literal["channels", "grid and channels"]] = "channels"

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        raise NotImplementedError
