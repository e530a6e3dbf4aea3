"""A convolution from pixels to tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...context import Context
from ...spec import NormSpec, Place, build
from ..convolution import channels_last_conv
from .stem import Stem, check_images, image_size


class ConvStem(Stem):
    """Convolution of `size` with `stride` and `padding`, then a norm where one is given.

    PoolFormer: 7, 4, 2 without norm; ConvNeXt: 4, 4, 0 with a layer norm. Images (B, in_chans, H, W) in.
    """

    EXAMPLES = ({"dim": 8}, {"dim": 8, "size": 4, "stride": 4, "padding": 0, "norm": "layer"})
    modality = "image"
    neighbours = (("conv", "norm"),)

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        size: Annotated[int, Field(gt=0)] = 7,
        stride: Annotated[int, Field(gt=0)] = 4,
        padding: Annotated[int, Field(ge=0)] = 2,
        norm: NormSpec | None = None,
        bias: bool = True,
        in_chans: Annotated[int, Field(gt=0)] = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("stem")
        self.dim, self.stride = dim, stride
        self.grid = tuple((n + 2 * padding - size) // stride + 1 for n in image_size(img_size, size - 2 * padding))
        self.conv = channels_last_conv(in_chans, dim, size, stride, padding, bias=bias)
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.writes = ("conv",) if norm is None else ("norm",)

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_images(inputs, self.conv.in_channels)
        x = self.conv(inputs.contiguous(memory_format=torch.channels_last)).movedim(1, -1)
        return x if self.norm is None else self.norm(x, ctx), ctx
