"""Separable convolution as a token mixer (arXiv 1801.04381, without its norms)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ..activations import Activation, Learned, activation_of
from ..convolution import convolution, over_grid
from ..dense import Dense, activated
from .mixer import Mixer


class SeparableConv(Mixer):
    """Dense to `ratio` times the width, `activation` where one is given, each channel convolved alone, dense back.

    The kernel has `size` on every axis of a map or a video, padded by zeros. UniFormer's local relation aggregator
    (arXiv 2201.09450, equation 3): ratio 1, size 5, no activation. CAFormer and ConvFormer (arXiv 2210.13452): ratio 2,
    size 7, an activation, no bias.
    """

    EXAMPLES = ({"size": 3}, {"size": 5, "ratio": 1.0, "bias": False, "activation": "star_relu"})
    unseen = ("activation",)
    grids: tuple[int, ...] = (2, 3)
    reads, writes = ("expand",), ("reduce",)

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(gt=0)] = 2.0,
        size: Annotated[int, Field(gt=0)] = 7,
        bias: bool = True,
        activation: Activation | Learned | None = None,
        grid: tuple[int, ...],
    ) -> None:
        super().__init__()
        rank = len(grid) if len(grid) > 1 else 2
        if len(grid) not in (0, 2, 3):
            raise BadSpec(f"separable_conv works on maps and videos, here the grid is {len(grid)}-D")
        if size % 2 == 0:
            raise BadSpec(f"size is an odd number, got {size}")
        hidden = max(1, int(dim * ratio))
        self.grids = (rank,)
        self.activation = None if activation is None else activation_of(activation)
        self.expand, self.reduce = Dense(dim, hidden, bias=bias), Dense(hidden, dim, bias=bias)
        self.conv = convolution(rank, hidden, hidden, size, padding=size // 2, groups=hidden, bias=bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        x = self.expand(x) if self.activation is None else activated(self.expand, x, self.activation)
        return self.reduce(over_grid(self.conv, x))
