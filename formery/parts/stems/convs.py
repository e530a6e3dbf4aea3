"""Convolutions one after another from pixels to tokens (arXiv 2106.14881)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from ..convolution import channels_last_conv
from .stem import Stem, check_images, image_size

Positive = Annotated[int, Field(gt=0)]
Several = Annotated[list[Positive], Field(min_length=1)]


class Convs(Stem):
    """A convolution for each of `widths`, each with a norm and an activation behind it. (B, in_chans, H, W) in.

    `sizes`, `strides` and `paddings` (half the size unless given) are one for all or one each. After the last
    convolution there is no activation if `last_activation` is false. With `pool`, a maximum over 3 x 3 with stride 2
    follows each activation.

    EfficientFormer: [24, 48], batch norm, ReLU; Next-ViT: [64, 32, 64, 64], strides 2, 1, 1, 2; UniFormer-S+: GELU,
    none last; CrossViT's dagger stems: no norm; CCT: no norm, ReLU, `pool`.
    """

    EXAMPLES = (
        {"widths": [4, 8]},
        {"widths": [4, 6, 8], "strides": [2, 1, 2], "norm": "layer", "activation": "gelu", "last_activation": False},
        {"widths": [4, 8], "sizes": [7, 3], "strides": 1, "norm": None, "bias": False, "pool": True},
    )
    unseen = ("activation", "pool")
    modality, first = "image", "convs.0"

    def __init__(
        self,
        *,
        widths: Several,
        sizes: Positive | Several = 3,
        strides: Positive | Several = 2,
        paddings: Annotated[int, Field(ge=0)] | list[Annotated[int, Field(ge=0)]] | None = None,
        norm: NormSpec | None = "batch",
        activation: Activation = "relu",
        last_activation: bool = True,
        pool: bool = False,
        bias: bool = True,
        in_chans: Positive = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place, depth = place or Place("stem"), len(widths)
        each_size, each_stride = _one_each(sizes, depth, "sizes"), _one_each(strides, depth, "strides")
        half = [size // 2 for size in each_size]
        each_padding = half if paddings is None else _one_each(paddings, depth, "paddings")
        self.dim, self.channels_in, self.pool = widths[-1], in_chans, pool
        self.grid = image_size(img_size)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            size, stride, padding = each_size[i], each_stride[i], each_padding[i]
            self.stride *= stride * (2 if pool else 1)
            self.grid = tuple((n + 2 * padding - size) // stride + 1 for n in self.grid)
            if min(self.grid) < 1:
                raise BadSpec(f"img_size {img_size} is too small for these convolutions; take a larger one")
            if pool:
                self.grid = tuple((n - 1) // 2 + 1 for n in self.grid)
            before = widths[i - 1] if i else in_chans
            self.convs.append(channels_last_conv(before, width, size, stride, padding, bias=bias))
            self.norms.append(nn.Identity() if norm is None else build("norm", norm, width, place=place.at("norm")))
        self.activation: Activation = activation
        self.activated = depth if last_activation else depth - 1
        last = "convs" if norm is None else "norms"
        self.writes = () if last_activation or pool else (f"{last}.{depth - 1}",)
        self.neighbours = () if norm is None else tuple((f"convs.{i}", f"norms.{i}") for i in range(depth))

    @classmethod
    def multiple(cls, options: Mapping[str, Any]) -> int:
        depth = len(options["widths"])
        return prod(_one_each(options["strides"], depth, "strides")) * (2**depth if options["pool"] else 1)

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_images(inputs, self.channels_in)
        x = inputs.contiguous(memory_format=torch.channels_last)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = conv(x)
            if not isinstance(norm, nn.Identity):
                x = norm(x.movedim(1, -1), ctx).movedim(-1, 1)
            if i < self.activated:
                x = ACTIVATIONS[self.activation](x)
            if self.pool:
                x = F.max_pool2d(x, 3, 2, 1)
        return x.movedim(1, -1), ctx


def _one_each(value: Any, depth: int, name: str) -> list[int]:
    values = [value] * depth if isinstance(value, int) else list(value)
    if len(values) != depth:
        raise BadSpec(f"{name}: one for all, or one for each of the {depth} convolutions, got {len(values)}")
    return values
