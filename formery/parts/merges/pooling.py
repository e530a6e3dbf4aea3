"""Average pooling, then a dense layer, between stages and groups of blocks (Next-ViT's patch embedding, arXiv
2207.05501, figure 2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context
from ...spec import NormSpec, Place, build
from ..dense import Dense
from ..norms.norm import Norm
from .merge import Merge


class PoolingMerge(Merge):
    """Means over `stride` x `stride` tokens (fewer at the end of a map that does not divide), a dense layer, and
    `out_norm` where one is given. With stride 1 nothing is pooled: another width, the same grid."""

    EXAMPLES = ({}, {"stride": 1, "out_norm": None, "bias": True})
    unseen = ("stride",)

    stride: int

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        stride: Annotated[int, Field(gt=0)] = 2,
        out_norm: NormSpec | None = "batch",
        bias: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        self.stride = stride
        self.dense = Dense(dim, out, bias=bias)
        self.out_norm: Norm | None = None
        self.reads = ("dense",)
        self.writes = ("dense",) if out_norm is None else ("out_norm",)
        if out_norm is not None:
            self.out_norm = build("norm", out_norm, out, place=place.at("out_norm"))
            self.neighbours = (("dense", "out_norm"),)

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(-(-n // self.stride) for n in grid)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        if self.stride > 1:
            maps = F.avg_pool2d(x.movedim(-1, 1), self.stride, ceil_mode=True, count_include_pad=False)
            x = maps.movedim(1, -1)
        y: Tensor = self.dense(x)
        return y if self.out_norm is None else self.out_norm(y, ctx)
