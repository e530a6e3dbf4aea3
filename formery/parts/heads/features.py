"""Feature maps for dense tasks: no head at all."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ...context import Context
from ..several import Widths
from .head import Features, Head


class MapFeatures(Head):
    """The body's maps at `indices` (all unless given), as (B, C, H, W) or, with `output_fmt` NHWC, (B, H, W, C)."""

    takes_several = True
    EXAMPLES = ({}, {"indices": [0], "output_fmt": "NHWC"})

    def __init__(
        self, dim: Widths, *, indices: list[int] | None = None, output_fmt: Literal["NCHW", "NHWC"] = "NCHW"
    ) -> None:
        super().__init__()
        self.indices, self.channels_last = indices, output_fmt == "NHWC"

    def forward(self, features: Features, ctx: Context) -> list[Tensor]:
        maps = [features.of_map(i) for i in sorted(features.maps)]
        return [as_map(one.x, one, channels_last=self.channels_last) for one in maps]


def as_map(tokens: Tensor, features: Features, *, channels_last: bool = False) -> Tensor:
    """Tokens of the features as a map, without prefix: (B, C, *grid), or channels last; sequences stay (B, L, C)."""
    if tokens.dim() == 3 and len(features.grid) > 1:
        tokens = tokens[:, features.prefix :].unflatten(1, features.grid)
    elif tokens.dim() == 3:
        return tokens[:, features.prefix :]
    return tokens if channels_last else tokens.movedim(-1, 1)
