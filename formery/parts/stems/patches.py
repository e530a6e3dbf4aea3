"""Patches of an image, each mapped to a token by one dense layer (ViT, arXiv 2010.11929, equation 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import Context
from ...ops.linear import linear
from ...spec import NormSpec, Place, build
from ..part import untouched
from .stem import Stem, check_patches, patch_grid


class Patches(Stem):
    """Non-overlapping patches of `size` pixels, as a convolution whose stride is its kernel. (B, in_chans, H, W) in."""

    EXAMPLES = ({"dim": 8, "size": 4}, {"dim": 8, "size": 2, "norm": "layer"})
    modality = "image"
    stride: int
    neighbours = (("conv", "norm"),)

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        size: Annotated[int, Field(gt=0)] = 16,
        norm: NormSpec | None = None,
        bias: bool = True,
        in_chans: Annotated[int, Field(gt=0)] = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("stem")
        self.dim, self.stride = dim, size
        self.grid = patch_grid(img_size, size)
        self.conv = nn.Conv2d(in_chans, dim, size, size, bias=bias)
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.writes = ("conv",) if norm is None else ("norm",)

    @classmethod
    def multiple(cls, options: Mapping[str, Any]) -> int:
        return int(options["size"])

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_patches(inputs, self.conv.in_channels, self.stride)
        x = self._projected(inputs)
        return x if self.norm is None else self.norm(x, ctx), ctx

    def _projected(self, images: Tensor) -> Tensor:
        """(B, h, w, dim). Outside compilers and exporters by one product, which is faster than the convolution."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or not untouched(self.conv, nn.Conv2d):  # type: ignore[attr-defined, no-untyped-call]
            return self.conv(images.contiguous(memory_format=torch.channels_last)).movedim(1, -1)
        patches = images.unfold(2, self.stride, self.stride).unfold(3, self.stride, self.stride)  # (B, C, h, w, s, s)
        return linear(patches.permute(0, 2, 3, 1, 4, 5).flatten(3), self.conv.weight.flatten(1), self.conv.bias)
