"""What attention inside groups of tokens of a map has in common, however the groups are chosen."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops.forms import plain
from ...ops.grouped_attention import added, by_order, grouped_attention
from ...ops.linear import linear
from ...ops.remembered import Remembered
from ...ops.token_groups import Cut, arrangement, for_map, grid_of, is_whole, mask_of, merge, partition, regions
from ...spec import Place
from ..attention_heads import heads_of, join_heads
from ..dense import Dense
from ..part import untouched
from ..positions.score_bias import ScoreBias, build_bias
from .mixer import Mixer

Scaling = Literal["dot", "cosine"]
HIGHEST = math.log(100.0)
"""Of the logarithm of a head's factor with cosine scaling."""


class Options(NamedTuple):
    """What every attention inside groups may be told."""

    heads: int | None
    head_dim: int | None
    position: Any
    scaling: Scaling
    bias: bool
    key_bias: bool
    published: bool


class GroupAttention(Mixer):
    """Softmax attention inside groups of `size` x `size` tokens of a map.

    A map smaller than a group, where the model is built for it, makes the group smaller. A larger or smaller map handed
    in later keeps the group and its biases: maps that are no whole number of groups are filled up, and no token sees
    the filling (as `published` they all see it as tokens of zeros, as in Swin's detection code).
    """

    grids: tuple[int, ...] = (2,)
    grouped = True
    reads: tuple[str, ...] = ("qkv",)
    writes = ("out",)
    undecayed = ("log_factor",)

    def __init__(self, dim: int, cut: Cut, options: Options, place: Place) -> None:
        super().__init__()
        self.heads, self.head_dim = heads_of(dim, options.heads, options.head_dim)
        self.cut, width = cut._replace(seen=options.published), self.heads * self.head_dim
        self.scale = self.head_dim**-0.5 if options.scaling == "dot" else 1.0
        self.qkv = Dense(dim, 3 * width, bias=options.bias and options.key_bias)
        self.qv_bias = nn.Parameter(torch.zeros(2 * width)) if options.bias and not options.key_bias else None
        self.out = Dense(width, dim)
        cosine = options.scaling == "cosine"
        self.log_factor = nn.Parameter(torch.full((self.heads,), math.log(10.0))) if cosine else None
        self.position: ScoreBias | None = None
        if options.position is not None:
            self.position = build_bias(options.position, self.heads, place, (cut.size, cut.size))
        if self.cut.seen:  # what is filled in is zero behind the norm: no norm can be folded across it
            self.reads = ()
        self._masked = Remembered(added)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        grid = grid_of(x)
        cut = for_map(self.cut, grid)
        if x.numel() > 0 and plain(x):
            to = arrangement(x.shape[0], grid, cut)
            return self.out(by_order(x, to, cut.size**2, self._heads, self._bias(), self._masked, self.scale))
        mask = None
        if cut.shift or not (cut.seen or is_whole(cut, grid)):
            mask = ctx.once(("groups", cut, grid), lambda: mask_of(regions(cut, grid, x.device))[:, None])
        q, k, v = self._heads(partition(x, cut))
        y = grouped_attention(q, k, v, self._bias(), mask, self.scale)
        return self.out(merge(join_heads(y), cut, grid))

    def _bias(self) -> Tensor | None:
        return None if self.position is None else self.position.bias()

    def _heads(self, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (groups, heads, N, D) of (groups, N, C)."""
        qkv = self._projected(groups).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.log_factor is None:
            return q, k, v
        factor = self.log_factor.clamp(max=HIGHEST).exp()[:, None, None].to(q.dtype)
        return F.normalize(q, dim=-1) * factor, F.normalize(k, dim=-1), v

    def _projected(self, groups: Tensor) -> Tensor:
        if self.qv_bias is None:
            return self.qkv(groups)
        q, v = self.qv_bias.chunk(2)
        bias = torch.cat([q, torch.zeros_like(q), v])
        if untouched(self.qkv, Dense) and self.qkv.bias is None:
            return linear(groups, self.qkv.weight, bias)
        return self.qkv(groups) + bias

    def macs(self, tokens: int, past: int = 0) -> int:
        return 2 * self.heads * self.head_dim * tokens * min(tokens, self.cut.size**2)
