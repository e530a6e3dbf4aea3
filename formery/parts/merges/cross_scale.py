"""Convolutions of several sizes between stages (CrossFormer, arXiv 2108.00154, section 3.1)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context
from ...spec import NormSpec, Place, build
from ..convolution import channels_last_conv, over_grid
from ..cross_scale import shares
from .merge import Merge


class CrossScaleMerge(Merge):
    """A norm, then convolutions of `sizes` with stride 2, their channels side by side: small kernels get more of them.

    The last token of an odd side is left out where every kernel leaves it out.
    """

    EXAMPLES = ({}, {"sizes": [2, 4, 6], "norm": None})

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        sizes: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)] = [2, 4],  # noqa: B006
        norm: NormSpec | None = "layer",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.convs = nn.ModuleList(
            channels_last_conv(dim, width, size, 2, (size - 2) // 2)
            for width, size in zip(shares(out, len(sizes), sizes, 2), sizes, strict=True)
        )
        self.reads = () if norm is None else ("norm",)

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(1, n // 2) for n in grid)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        x = x if self.norm is None else self.norm(x, ctx)
        return torch.cat([over_grid(conv, x) for conv in self.convs], dim=-1)
