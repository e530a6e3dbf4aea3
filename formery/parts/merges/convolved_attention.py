"""Convolution and attention side by side between stages (EfficientFormerV2, arXiv 2212.08059, section 3.1: dual-path
attention downsampling)."""

from __future__ import annotations

from torch import Tensor, nn

from ...context import NOTHING, Context
from ...ops.softmax_attention import softmax_attention
from ...spec import NormSpec, Place, PositionSpec
from ..activations import ACTIVATIONS, Activation
from ..attention_heads import join_heads, split_heads
from ..convolution import channels_last_conv, over_grid
from ..dense import Dense
from ..norms.norm import normed, norms_by
from ..positions.score_bias import build_bias
from ..strides import Positive
from .merge import Merge

EVERY_SECOND = {"kind": "distance_table", "stride": 2}


class ConvolvedAttentionMerge(Merge):
    """A 3 x 3 convolution of stride 2, and added to it attention in which every second place asks all places.

    A query is its place plus a depthwise 3 x 3 convolution around it. What is attended to is added to a depthwise
    convolution of the values, and goes through the activation, a dense layer and a norm. Norms stand behind all layers
    but the queries' convolution. Keys and values are one dense layer, in this order; heads are as in the mixer
    `biased_attention`.
    """

    EXAMPLES = ({"heads": 4, "key_dim": 4}, {"heads": 2, "key_dim": 4, "value_dim": 6, "norm": "layer"})
    unseen = ("heads", "activation", "position")

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        heads: Positive = 8,
        key_dim: Positive = 16,
        value_dim: Positive = 64,
        norm: NormSpec = "batch",
        activation: Activation = "gelu",
        position: PositionSpec = EVERY_SECOND,
        grid: tuple[int, ...],
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        self.heads, self.activation = heads, activation
        self.widths = heads * key_dim, heads * value_dim
        keys, values = self.widths
        normed_by = norms_by(norm, place)

        self.conv, self.conv_norm = channels_last_conv(dim, out, 3, 2, 1), normed_by(out, "conv_norm")
        self.near = nn.Conv2d(dim, dim, 3, 2, 1, groups=dim)
        self.q, self.q_norm = Dense(dim, keys), normed_by(keys, "q_norm")
        self.kv, self.kv_norm = Dense(dim, keys + values), normed_by(keys + values, "kv_norm")
        self.local, self.local_norm = nn.Conv2d(values, values, 3, 2, 1, groups=values), normed_by(values, "local_norm")
        self.position = build_bias(position, heads, place, tuple(grid), stride=2)
        self.out, self.out_norm = Dense(values, out), normed_by(out, "out_norm")
        self.writes = ("conv_norm", "out_norm")
        self.neighbours = tuple((name, f"{name}_norm") for name in ("conv", "q", "kv", "local", "out"))

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple((n + 1) // 2 for n in grid)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        query = over_grid(self.near, x) + x[:, ::2, ::2]
        q = normed(self.q_norm, self.q(query), ctx)
        keys, values = normed(self.kv_norm, self.kv(x), ctx).split(self.widths, dim=-1)
        local = normed(self.local_norm, over_grid(self.local, values), ctx)
        q, k, v = (split_heads(t.flatten(1, 2), self.heads) for t in (q, keys, values))
        bias = self.position.bias(tuple(x.shape[1:3])).to(q.dtype)
        met = join_heads(softmax_attention(q, k, v, bias, q.shape[-1] ** -0.5))
        y = ACTIVATIONS[self.activation](met.view_as(local) + local)
        attended = normed(self.out_norm, self.out(y), ctx)
        return normed(self.conv_norm, over_grid(self.conv, x), ctx) + attended
