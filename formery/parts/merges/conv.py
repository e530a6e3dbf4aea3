"""A strided convolution between stages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context
from ...ops.map_convolution import map_convolution
from ...spec import NormSpec, Place, build
from ..convolution import channels_last_conv
from ..part import untouched
from .merge import Merge


class ConvMerge(Merge):
    """A norm where one is given, then a convolution of `size` with `stride` and `padding`.

    PoolFormer: 3, 2, 1 without norm; ConvNeXt: 2, 2, 0 after a layer norm.
    """

    EXAMPLES = ({}, {"size": 2, "padding": 0, "norm": "layer"})
    writes, neighbours = ("conv",), (("norm", "conv"),)

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        size: Annotated[int, Field(gt=0)] = 3,
        stride: Annotated[int, Field(gt=0)] = 2,
        padding: Annotated[int, Field(ge=0)] = 1,
        norm: NormSpec | None = None,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        self.stride, self.size, self.padding = stride, size, padding
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.conv = channels_last_conv(dim, out, size, stride, padding, bias=bias)
        self.reads = ("conv",) if norm is None else ("norm",)

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(1, (n + 2 * self.padding - self.size) // self.stride + 1) for n in grid)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        x = x if self.norm is None else self.norm(x, ctx)
        if untouched(self.conv, nn.Conv2d):
            return map_convolution(x, self.conv.weight, self.conv.bias, self.stride, self.padding)
        return self.conv(x.movedim(-1, 1)).movedim(1, -1)
