"""What every stem is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...context import Context
from ...errors import BadSpec, CannotRun
from ..part import Part
from ..several import Tokens


class Stem(Part):
    """Maps raw input to tokens (B, *grid, dim) and a context that says what is known about them.

    Tokens may be several tensors, one a branch of the body: then width, grid and stride are tuples, one entry each.
    """

    modality: str
    dim: Any
    """Width of the tokens."""
    grid: Any
    """Nominal grid of the tokens: of an image of `img_size`, of a text of the greatest length (0: any)."""
    fixed_grid: bool = False
    """Whether an input of any size gives tokens on this grid."""
    channels: int | None = None
    """Numbers at each step of a series; None for what is none."""
    stride: Any = 1
    """Input steps (pixels) from one token to the next; no whole number where the stem resizes the image."""
    first: str | tuple[str, ...] | None = "conv"
    """Name of the convolution that reads the pixels, in stems for images; one for each of several tensors, None where
    there is none."""
    table: str | None = None
    """Name of the embedding with a row for each entry of the vocabulary, in stems for texts."""

    def tokens_of(self, length: int) -> int:
        """How many tokens a text or series of `length` steps makes."""
        return length

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tokens, Context]:
        raise NotImplementedError

    @classmethod
    def multiple(cls, options: Mapping[str, Any]) -> int:
        """What the sides of an image are best a multiple of, with these options."""
        return 1


def image_size(size: int | list[int], least: int = 1) -> tuple[int, int]:
    """(height, width) of an `img_size` option: a number, or two. BadSpec below `least`, which makes one token."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < max(1, least):
        raise BadSpec(f"img_size is at least {max(1, least)} here, for one token, got {size}")
    return height, width


def patch_grid(img_size: int | list[int], size: int) -> tuple[int, int]:
    """The grid of patches of `size` pixels in an image of `img_size`; BadSpec where they do not cover it exactly."""
    sides = image_size(img_size, size)
    if any(n % size for n in sides):
        whole = " or ".join(str(n) for n in (sides[0] // size * size, -(-sides[0] // size) * size))
        raise BadSpec(f"img_size {img_size} is not a whole number of patches of {size}; take {whole}")
    return sides[0] // size, sides[1] // size


def check_images(inputs: Tensor, channels: int) -> None:
    """CannotRun unless these are images (B, channels, H, W) of floating point numbers."""
    if inputs.dim() != 4 or inputs.shape[1] != channels:
        raise CannotRun(
            f"images are (batch, {channels}, height, width), got {tuple(inputs.shape)}; reorder or set in_chans"
        )
    if not inputs.is_floating_point():
        raise CannotRun(f"images are floating point numbers, got {inputs.dtype}; scale and normalise them first")


def check_patches(inputs: Tensor, channels: int, size: int) -> None:
    """CannotRun unless these are images of `channels` whose sides are whole numbers of patches of `size` pixels."""
    check_images(inputs, channels)
    if not torch.compiler.is_compiling() and (inputs.shape[-1] % size or inputs.shape[-2] % size):
        raise CannotRun(f"an image of {tuple(inputs.shape[-2:])} is not a whole number of patches of {size}")


def check_videos(inputs: Tensor, channels: int) -> None:
    """CannotRun unless these are videos (B, channels, T, H, W) of floating point numbers."""
    if inputs.dim() != 5 or inputs.shape[1] != channels:
        raise CannotRun(
            f"videos are (batch, {channels}, frames, height, width), got {tuple(inputs.shape)}; reorder or set in_chans"
        )
    if not inputs.is_floating_point():
        raise CannotRun(f"videos are floating point numbers, got {inputs.dtype}; scale and normalise them first")
