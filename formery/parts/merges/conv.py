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
    """A convolution of `size` with `stride` and `padding`, a `norm` before and an `out_norm` behind it where given.

    PoolFormer: 3, 2, 1 without norms; ConvNeXt: 2, 2, 0 after a norm; EfficientFormer: 3, 2, 1 before a batch norm.
    """

    EXAMPLES = ({}, {"size": 2, "padding": 0, "norm": "layer"}, {"out_norm": "batch", "bias": False})

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        size: Annotated[int, Field(gt=0)] = 3,
        stride: Annotated[int, Field(gt=0)] = 2,
        padding: Annotated[int, Field(ge=0)] = 1,
        norm: NormSpec | None = None,
        out_norm: NormSpec | None = None,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        self.stride, self.size, self.padding = stride, size, padding
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.conv = channels_last_conv(dim, out, size, stride, padding, bias=bias)
        self.out_norm = None if out_norm is None else build("norm", out_norm, out, place=place.at("out_norm"))
        self.reads = ("conv",) if norm is None else ("norm",)
        self.writes = ("conv",) if out_norm is None else ("out_norm",)
        self.neighbours = (("norm", "conv"),) if norm is not None else ()
        self.neighbours += (("conv", "out_norm"),) if out_norm is not None else ()

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(1, (n + 2 * self.padding - self.size) // self.stride + 1) for n in grid)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        x = x if self.norm is None else self.norm(x, ctx)
        if untouched(self.conv, nn.Conv2d):
            x = map_convolution(x, self.conv.weight, self.conv.bias, self.stride, self.padding)
        else:
            x = self.conv(x.movedim(-1, 1)).movedim(1, -1)
        return x if self.out_norm is None else self.out_norm(x, ctx)
