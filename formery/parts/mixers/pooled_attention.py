"""Attention to pooled keys and values (Next-ViT, arXiv 2207.05501, equations 5 and 6)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops.softmax_attention import softmax_attention
from ...spec import NormSpec, Place, build
from ..attention_heads import join_heads, split_heads
from ..dense import Dense
from ..norms.norm import Norm
from ..widths import shared_width
from .mixer import Mixer

Pool = Literal["raster", "2d"]


class PooledAttention(Mixer):
    """Every token asks; keys and values are those of means over `stride`^2 tokens, normed where a `norm` is given.

    With `pool` "2d" the means are over squares of stride x stride, as in the paper's figure 4; with "raster"
    (published: released code and weights) over runs of stride^2 tokens in raster order, which wrap at the ends of rows.
    What is left at the end of the map, where it does not divide, is a smaller square or a shorter run with a mean of
    its own. (The released code drops the rest of a raster silently.)
    """

    EXAMPLES = (
        {"heads": 4, "stride": 2},
        {"heads": 2, "stride": 3, "pool": "2d", "norm": "layer", "head_dim": 6, "bias": False, "out_bias": False},
    )
    unseen = ("heads", "stride", "pool")
    grids = (2,)
    writes = ("out",)

    def __init__(
        self,
        dim: int,
        *,
        heads: Annotated[int, Field(gt=0)] = 8,
        head_dim: Annotated[int, Field(gt=0)] | None = None,
        stride: Annotated[int, Field(gt=0)] = 2,
        pool: Pool = "raster",
        norm: NormSpec | None = "batch",
        bias: bool = True,
        out_bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("pooled_attention")
        head_dim = shared_width("head_dim", head_dim, dim, heads)
        self.heads, self.head_dim, self.stride, self.pool = heads, head_dim, stride, pool
        width = heads * head_dim
        self.q, self.kv = Dense(dim, width, bias=bias), Dense(dim, 2 * width, bias=bias)
        self.norm: Norm | None = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.looks_at_batch = getattr(self.norm, "looks_at_batch", False)
        self.out = Dense(width, dim, bias=out_bias)
        self.reads = ("q", "kv") if norm is None else ("q", "norm")
        self.neighbours = () if norm is None else (("norm", "kv"),)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        pooled = self._pooled(x)
        if self.norm is not None:
            pooled = self.norm(pooled, ctx)
        q = split_heads(self.q(x.flatten(1, -2)), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.kv(pooled).chunk(2, dim=-1))
        y = softmax_attention(q, k, v, None, self.head_dim**-0.5)
        return self.out(join_heads(y)).view(x.shape)

    def _pooled(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, keys, C)."""
        maps, size = x.movedim(-1, 1), (self.stride, self.stride)
        if self.pool == "raster":  # one row of tokens
            maps, size = x.flatten(1, -2).mT.unsqueeze(2), (1, self.stride**2)
        return F.avg_pool2d(maps, size, size, ceil_mode=True, count_include_pad=False).flatten(2).mT

    def macs(self, tokens: int, past: int = 0) -> int:
        """As if the sides of the map divided."""
        return 2 * self.heads * self.head_dim * tokens * -(-tokens // self.stride**2)
