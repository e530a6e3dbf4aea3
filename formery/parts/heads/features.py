"""Feature maps for dense tasks: no head at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ...context import Context
from ...spec import NormSpec, Place, build
from ..several import Widths
from .head import Features, Head


class MapFeatures(Head):
    """The body's maps at `indices` (all unless given, the last n for a number), from the first to the last, as
    (B, C, H, W) or, with `output_fmt` NHWC, (B, H, W, C).

    With `norm` each map comes through a norm of its own, as detection and segmentation take them from raw stages
    (ConvNeXt, arXiv 2201.03545, section 4). The model says how wide the maps are (`furnish`).
    """

    takes_several = True
    EXAMPLES = ({}, {"indices": [0], "output_fmt": "NHWC"})

    def __init__(
        self,
        dim: Widths,
        *,
        indices: Annotated[list[int], Field(min_length=1)] | PositiveInt | None = None,
        output_fmt: Literal["NCHW", "NHWC"] = "NCHW",
        norm: NormSpec | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        self.indices, self.channels_last, self.norm = indices, output_fmt == "NHWC", norm
        self.place, self.norms = place or Place("head"), nn.ModuleDict()

    def furnish(self, widths: Mapping[int, int]) -> None:
        """Make the norms of the maps that are given out, by their numbers and widths; nothing without `norm`."""
        for index, width in widths.items() if self.norm is not None else ():
            self.norms[str(index)] = build("norm", self.norm, width, place=self.place.at(f"norms.{index}"))

    def forward(self, features: Features, ctx: Context) -> list[Tensor]:
        maps = []
        for i in sorted(features.maps):
            one = features.of_map(i)
            x = self.norms[str(i)](one.x, ctx) if str(i) in self.norms else one.x
            maps.append(as_map(x, one, channels_last=self.channels_last))
        return maps


def as_map(tokens: Tensor, features: Features, *, channels_last: bool = False) -> Tensor:
    """Tokens of the features as a map, without prefix: (B, C, *grid), or channels last; sequences stay (B, L, C)."""
    if tokens.dim() == 3 and len(features.grid) > 1:
        tokens = tokens[:, features.prefix :].unflatten(1, features.grid)
    elif tokens.dim() == 3:
        return tokens[:, features.prefix :]
    return tokens if channels_last else tokens.movedim(-1, 1)
