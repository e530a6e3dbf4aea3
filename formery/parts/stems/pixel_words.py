"""Patches as rows of words: smaller patches inside each (TNT, arXiv 2103.00112, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ...context import Context
from ...errors import BadSpec
from ..convolution import channels_last_conv
from .stem import Stem, check_patches, patch_grid

Positive = Annotated[int, Field(gt=0)]


class PixelWords(Stem):
    """Each patch of `size` pixels alone through a convolution of `kernel` with `stride`, zeros at its own border: words
    of `width` channels, row by row, those of a patch in one token of all their channels.

    With `across` the convolution sees the whole image, and words at the border of a patch see its neighbours (timm's
    `tnt_s_legacy`). (B, in_chans, H, W) in.
    """

    EXAMPLES = (
        {"width": 3, "size": 8},
        {"width": 2, "size": 8, "stride": 2, "kernel": 3, "across": True},
    )
    unseen = ("stride",)
    modality = "image"

    def __init__(
        self,
        *,
        width: Positive,
        size: Positive = 16,
        stride: Positive = 4,
        kernel: Positive = 7,
        across: bool = False,
        in_chans: Positive = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
    ) -> None:
        super().__init__()
        if size % stride or not kernel % 2:
            raise BadSpec(f"size ({size}) is a multiple of stride ({stride}), and kernel ({kernel}) is odd")
        self.stride, self.side, self.across = size, size // stride, across
        self.dim, self.grid = self.side**2 * width, patch_grid(img_size, size)
        self.conv = channels_last_conv(in_chans, width, kernel, stride, kernel // 2, bias=True)

    @classmethod
    def multiple(cls, options: Mapping[str, Any]) -> int:
        return int(options["size"])

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_patches(inputs, self.conv.in_channels, self.stride)
        if self.across:
            words = _cut(self.conv(inputs.contiguous(memory_format=torch.channels_last)), self.side)
            return words.flatten(3), ctx
        patches = _cut(inputs, self.stride)  # (B, h, w, s, s, C)
        words = self.conv(patches.flatten(0, 2).movedim(-1, 1)).movedim(1, -1)
        return words.flatten(1).unflatten(0, patches.shape[:3]), ctx


def _cut(maps: Tensor, side: int) -> Tensor:
    """(B, C, H, W) as tiles (B, H / side, W / side, side, side, C)."""
    return maps.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 3, 5, 1)
