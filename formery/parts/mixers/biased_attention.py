"""Attention of all places of a map, its scores biased by where they stand, its values wider than its keys (LeViT,
arXiv 2104.01136, section 4.2; EfficientFormer, arXiv 2206.01191, section 4.1)."""

from __future__ import annotations

from torch import Tensor

from ...context import NOTHING, Context, State
from ...ops.softmax_attention import softmax_attention
from ...spec import Place, PositionSpec
from ..attention_heads import join_heads, split_heads
from ..dense import Dense
from ..positions.score_bias import build_bias
from ..strides import Positive
from .grids import check_bound
from .mixer import Mixer


class BiasedAttention(Mixer):
    """Softmax attention of `heads` with `key_dim` channels of query and key and `value_dim` of value a head each.

    `qkv` gives all queries, then all keys, then all values. `position` gives the bias, which binds the mixer to its
    grid; another grid's is made by its rule (`load_published(..., img_size=)`).
    """

    EXAMPLES = ({"heads": 4, "key_dim": 6, "value_dim": 10}, {"heads": 2, "position": "relative_table", "bias": False})
    unseen = ("heads", "position")
    fixed_grid = True
    reads, writes = ("qkv",), ("out",)

    def __init__(
        self,
        dim: int,
        *,
        heads: Positive = 8,
        key_dim: Positive = 32,
        value_dim: Positive | None = None,
        position: PositionSpec = "distance_table",
        bias: bool = True,
        out_bias: bool = True,
        grid: tuple[int, ...],
        place: Place | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.grid = heads, tuple(grid)
        self.widths = (heads * key_dim, heads * key_dim, heads * (value_dim or key_dim))
        """Of queries, keys and values in the one projection."""
        self.qkv = Dense(dim, sum(self.widths), bias=bias)
        self.position = build_bias(position, heads, place or Place("biased_attention"), self.grid)
        self.out = Dense(self.widths[2], dim, bias=out_bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        check_bound(self, x, self.grid)
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x.flatten(1, -2)).split(self.widths, dim=-1))
        y = softmax_attention(q, k, v, self.position.bias().to(q.dtype), q.shape[-1] ** -0.5)
        return self.out(join_heads(y)).unflatten(1, x.shape[1:-1])

    def macs(self, tokens: int, past: int = 0) -> int:
        return (self.widths[0] + self.widths[2]) * tokens * tokens
