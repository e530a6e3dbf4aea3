"""Patches of several sizes around the same centre make one token (CrossFormer, arXiv 2108.00154, section 3.1)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import Context
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..convolution import channels_last_conv
from .stem import Stem, check_images, image_size

Sizes = Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]


def shares(width: int, count: int, sizes: list[int], stride: int) -> list[int]:
    """Channels of the convolutions of rising `sizes`: each has half of what is left, the last two have the same.

    BadSpec where they cannot be halved so often, or a size does not stand around the stride's tokens.
    """
    if odd := [size for size in sizes if size < stride or (size - stride) % 2]:
        raise BadSpec(f"sizes: a kernel stands around {stride} pixels or tokens, an even number more; got {odd[0]}")
    if width % 2 ** (count - 1):
        raise BadSpec(f"{width} channels cannot be halved {count - 1} times; take another width or fewer sizes")
    return [width // 2 ** min(i + 1, count - 1) for i in range(count)]


class CrossScaleStem(Stem):
    """Convolutions of `sizes` with one `stride`, their channels side by side, then a norm. Small kernels get more of
    the `dim` channels: a half, a quarter, an eighth, an eighth. Images (B, in_chans, H, W) in."""

    EXAMPLES = ({"dim": 8, "sizes": [4, 8]}, {"dim": 16, "sizes": [2, 4, 8], "stride": 2, "norm": None})
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

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_images(inputs, self.channels_in)
        images = inputs.contiguous(memory_format=torch.channels_last)
        x = torch.cat([conv(images).movedim(1, -1) for conv in self.convs], dim=-1)
        return x if self.norm is None else self.norm(x, ctx), ctx
