"""Patches of several sizes around the same centre make one token (CrossFormer, arXiv 2108.00154, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import Context
from ...spec import NormSpec, Place, build
from ..convolution import channels_last_conv, check_reach
from ..cross_scale import shares
from .stem import Stem, check_images, image_size

Sizes = Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]


class CrossScaleStem(Stem):
    """Convolutions of `sizes` with one `stride`, their channels side by side, then a norm. Small kernels get more of
    the `dim` channels: a half, a quarter, an eighth, an eighth. Images (B, in_chans, H, W) in."""

    EXAMPLES = ({"dim": 8, "sizes": [4, 8]}, {"dim": 16, "sizes": [2, 4, 8], "stride": 2, "norm": None})
    unseen = ("stride",)
    modality = "image"

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        sizes: Sizes = [4, 8, 16, 32],  # noqa: B006 # read, never written
        stride: Annotated[int, Field(gt=0)] = 4,
        norm: NormSpec | None = "layer",
        in_chans: Annotated[int, Field(gt=0)] = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("stem")
        self.dim, self.stride, self.channels_in = dim, stride, in_chans
        self.grid = tuple(n // stride for n in image_size(img_size, stride))
        self.convs = nn.ModuleList(
            channels_last_conv(in_chans, width, size, stride, (size - stride) // 2)
            for width, size in zip(shares(dim, len(sizes), sizes, stride), sizes, strict=True)
        )
        self.first = tuple(f"convs.{i}" for i in range(len(sizes)))
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.writes = () if norm is None else ("norm",)

    @classmethod
    def multiple(cls, options: Mapping[str, Any]) -> int:
        return int(options["stride"])

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_images(inputs, self.channels_in)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            check_reach(conv, inputs.shape[2:])
        images = inputs.contiguous(memory_format=torch.channels_last)
        x = torch.cat([conv(images).movedim(1, -1) for conv in self.convs], dim=-1)
        return x if self.norm is None else self.norm(x, ctx), ctx
