"""What every norm is."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ...context import NOTHING, Context
from ..part import Part


class Norm(Part):
    """Maps (B, *grid, C) to the same shape, with statistics over the axes that it names."""

    over: ClassVar[Literal["channels", "grid and channels", "batch and grid"]] = "channels"

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        raise NotImplementedError
