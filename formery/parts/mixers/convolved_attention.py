"""Attention among convolutions: EfficientFormerV2's mixer (arXiv 2212.08059, section 3.1 and figure 2)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops.softmax_attention import softmax_attention
from ...spec import NormSpec, Place, PositionSpec
from ..activations import ACTIVATIONS, Activation
from ..attention_heads import join_heads, split_heads
from ..convolution import depthwise_conv, over_grid
from ..dense import Dense
from ..norms.norm import normed, norms_by
from ..positions.score_bias import build_bias
from ..strides import Positive
from .grids import check_bound
from .mixer import Mixer
from .talking_heads import TalkingHeads


class ConvolvedAttention(Mixer):
    """Attention over every `stride`-th place, whose values meet a depthwise 3 x 3 convolution of themselves as well.

    With a `stride` a depthwise convolution brings the map there, and the result is scaled up again, linearly between
    places (of a map that is no multiple of it, the rows and columns too many are cut off). Queries, keys and values
    are one dense layer and norm; heads talk before and behind the softmax where `talking` says so; the sum with the
    convolved values goes through the activation, a dense layer and a norm. Heads are as in `biased_attention`.
    """

    EXAMPLES = (
        {"heads": 4, "key_dim": 6, "value_dim": 10},
        {"heads": 2, "key_dim": 4, "value_dim": 8, "stride": 2, "talking": False, "norm": "layer"},
    )
    unseen = ("heads", "stride", "activation", "position")
    grids = (2,)
    fixed_grid = True
    writes = ("out_norm",)

    def __init__(
        self,
        dim: int,
        *,
        heads: Positive = 8,
        key_dim: Positive = 32,
        value_dim: Positive = 128,
        stride: Annotated[int, Field(ge=1)] = 1,
        talking: bool = True,
        norm: NormSpec = "batch",
        activation: Activation = "gelu",
        position: PositionSpec = "distance_table",
        grid: tuple[int, ...],
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("convolved_attention")
        self.heads, self.stride, self.grid = heads, stride, tuple(grid)
        self.activation: Activation = activation
        self.widths = (heads * key_dim, heads * key_dim, heads * value_dim)
        values = self.widths[2]
        normed_by = norms_by(norm, place)

        self.down = nn.Conv2d(dim, dim, 3, stride, 1, groups=dim) if stride > 1 else None
        self.down_norm = normed_by(dim, "down_norm") if stride > 1 else None
        self.qkv, self.qkv_norm = Dense(dim, sum(self.widths)), normed_by(sum(self.widths), "qkv_norm")
        self.local, self.local_norm = depthwise_conv(values, 3), normed_by(values, "local_norm")
        self.before, self.behind = (TalkingHeads(heads) if talking else None for _ in range(2))
        coarse = tuple(-(-n // stride) for n in grid)
        self.position = build_bias(position, heads, place, coarse)
        self.out, self.out_norm = Dense(values, dim), normed_by(dim, "out_norm")
        self.reads = ("qkv",) if self.down is None else ("down",)
        self.neighbours = tuple(
            (name, f"{name}_norm") for name in ("down", "qkv", "local", "out") if getattr(self, name) is not None
        )

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        check_bound(self, x, self.grid)
        height, width = x.shape[1:3]
        if self.down is not None:
            x = normed(self.down_norm, over_grid(self.down, x), ctx)
        grid = x.shape[1:3]
        qkv = normed(self.qkv_norm, self.qkv(x), ctx)
        q, k, values = qkv.split(self.widths, dim=-1)
        local = normed(self.local_norm, over_grid(self.local, values), ctx)
        q, k, v = (split_heads(t.flatten(1, 2), self.heads) for t in (q, k, values))
        y = join_heads(self._attended(q, k, v)).unflatten(1, grid) + local
        if self.stride > 1:
            scaled = F.interpolate(y.movedim(-1, 1), scale_factor=self.stride, mode="bilinear", align_corners=False)
            y = scaled.movedim(1, -1)[:, :height, :width]
        return normed(self.out_norm, self.out(ACTIVATIONS[self.activation](y)), ctx)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias, scale = self.position.bias(), q.shape[-1] ** -0.5
        if self.before is None or self.behind is None:
            return softmax_attention(q, k, v, bias.to(q.dtype), scale)
        scores = q @ k.mT
        scores = torch.add(bias.to(scores.dtype), scores, alpha=scale)
        return self.behind(self.before(scores).softmax(-1).to(v.dtype)) @ v

    def macs(self, tokens: int, past: int = 0) -> int:
        places = self.position.grid[0] * self.position.grid[1]
        pairs = places * places
        talk = sum(part.macs(pairs) for part in (self.before, self.behind) if part is not None)
        return (self.widths[0] + self.widths[2]) * pairs + talk
