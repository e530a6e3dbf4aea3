"""A convolution from pixels to tokens."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from ...context import Context
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..convolution import LAYOUTS, check_reach, convolution
from ..strides import Natural, Positive, as_stride, per_axis
from .stem import Stem, check_images, check_videos, image_size


class ConvStem(Stem):
    """Convolution of `size` with `stride` and `padding`, then a norm where one is given.

    Each of the three is a number for all axes, or one an axis. PoolFormer: 7, 4, 2 without norm; ConvNeXt: 4, 4, 0 with
    a layer norm. Images (B, in_chans, H, W) in, or with `frames`, the nominal number of them, videos (B, in_chans, T,
    H, W). UniFormer's on videos: [3, 4, 4], [2, 4, 4], [1, 0, 0].
    """

    EXAMPLES = (
        {"dim": 8},
        {"dim": 8, "size": 4, "stride": 4, "padding": 0, "norm": "layer"},
        {"dim": 8, "size": [3, 4, 4], "stride": [2, 4, 4], "padding": [1, 0, 0], "frames": 4, "norm": "layer"},
    )
    unseen = ("stride", "padding")
    modality = "image"
    neighbours = (("conv", "norm"),)

    def __init__(
        self,
        *,
        dim: Positive,
        size: Positive | list[Positive] = 7,
        stride: Positive | list[Positive] = 4,
        padding: Natural | list[Natural] = 2,
        norm: NormSpec | None = None,
        bias: bool = True,
        in_chans: Positive = 3,
        img_size: int | Annotated[list[int], Field(min_length=2, max_length=2)] = 224,
        frames: Positive | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("stem")
        rank = 2 if frames is None else 3
        given = {"size": size, "stride": stride, "padding": padding}
        sizes, strides, paddings = (per_axis(value, rank, name) for name, value in given.items())
        least = max(n - 2 * p for n, p in zip(sizes[-2:], paddings[-2:], strict=True))
        sides = image_size(img_size, least)
        if frames is not None and frames + 2 * paddings[0] < sizes[0]:
            raise BadSpec(f"frames is at least {sizes[0] - 2 * paddings[0]} here, for one token, got {frames}")
        nominal = sides if frames is None else (frames, *sides)
        self.modality = "image" if frames is None else "video"
        self.dim, self.stride = dim, as_stride(strides)
        self.grid = tuple(
            (n + 2 * p - k) // s + 1 for n, k, s, p in zip(nominal, sizes, strides, paddings, strict=True)
        )
        self.conv = convolution(rank, in_chans, dim, sizes, strides, paddings, bias=bias)
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.writes = ("conv",) if norm is None else ("norm",)

    @classmethod
    def multiple(cls, options: Mapping[str, Any]) -> int:
        strides = options["stride"]
        return int(strides) if isinstance(strides, int) else lcm(*strides[-2:])

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        (check_images if self.modality == "image" else check_videos)(inputs, self.conv.in_channels)
        check_reach(self.conv, inputs.shape[2:])
        x = self.conv(inputs.contiguous(memory_format=LAYOUTS[len(self.grid)])).movedim(1, -1)
        return x if self.norm is None else self.norm(x, ctx), ctx
