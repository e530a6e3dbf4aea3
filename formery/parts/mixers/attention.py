"""Softmax attention (arXiv 1706.03762), with grouped heads, rotary positions, q/k norm and window as options."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Cache, Context, State, Window
from ...errors import BadSpec
from ...ops.sliding_window import sliding_window
from ...ops.softmax_attention import softmax_attention
from ...spec import NormSpec, Place, PositionSpec, build
from ..attention_heads import join_heads, split_heads
from ..dense import Dense
from ..part import idle
from ..widths import shared_width
from .masks import attention_mask
from .mixer import CLASS_ROW, Growth, Mixer
from .ragged import by_sequence

LONG = 2
"""Windows in a row from which on attention goes by blocks."""


class Attention(Mixer):
    """Scaled dot-product attention of `heads` query heads over `kv_heads` key and value heads (equal unless given).

    `head_dim` is the width divided by the heads unless given. `position` turns queries and keys (rope). `qk_norm`
    normalises queries and keys, each head alone or the whole projection (`qk_norm_over`: OLMo 2 does the latter).
    `window` lets a causal token see that many tokens, itself included. `gated` scales each channel of what a token gets
    by a sigmoid of the token, before the output's projection (arXiv 2505.06708). `bias` is that of q, k, v and gate;
    `out_bias` that of the output. Causal where the context asks for it; on maps all tokens see all.
    """

    EXAMPLES = (
        {"heads": 4},
        {"heads": 4, "kv_heads": 2, "position": "rope", "qk_norm": "rms", "bias": False, "out_bias": False},
        {"heads": 2, "head_dim": 6, "window": 5, "position": {"kind": "rope", "fraction": 0.34}},
        {"heads": 4, "qk_norm": "rms", "qk_norm_over": "width"},
        {"heads": 4, "kv_heads": 2, "head_dim": 6, "gated": True},
    )
    unseen = ("heads", "position", "qk_norm_over", "window", "scale")
    causal, streams, packs = "on request", "any", True
    state_growth: Growth = "linear"
    reads, writes = ("qkv",), ("out",)

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 8,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        position: PositionSpec | None = None,
        qk_norm: NormSpec | None = None,
        qk_norm_over: Literal["head", "width"] = "head",
        window: int | None = None,
        gated: bool = False,
        bias: bool = True,
        out_bias: bool = True,
        scale: float | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("attention")
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1 or heads % kv_heads:
            raise BadSpec(f"heads ({heads}) is a multiple of kv_heads ({kv_heads}), both at least 1")
        head_dim = shared_width("head_dim", head_dim, dim, heads)
        if window is not None and window < 1:
            raise BadSpec(f"window is at least 1 (the token itself), got {window}")
        if qk_norm is None:
            idle(Attention, "without a qk_norm", qk_norm_over=qk_norm_over)
        self.heads, self.kv_heads, self.head_dim, self.window = heads, kv_heads, head_dim, window
        self.scale = head_dim**-0.5 if scale is None else scale
        self.widths = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim, heads * head_dim if gated else 0)
        """Of the one projection: q, k, v, the gate."""
        self.qkv = Dense(dim, sum(self.widths), bias=bias)
        self.out = Dense(self.widths[0], dim, bias=out_bias)
        self.norm_width = qk_norm_over == "width"
        norm_dims = self.widths[:2] if self.norm_width else (head_dim, head_dim)
        self.q_norm, self.k_norm = (
            build("norm", qk_norm, n, place=place.at("qk_norm")) if qk_norm is not None else None for n in norm_dims
        )
        self.position = None
        if position is not None:
            self.position = build("position", position, head_dim, place=place.at("position"))
            if self.position.acts_on != "queries and keys":
                raise BadSpec("position inside attention turns queries and keys: rope; put others on the body")
        if window is not None:
            self.state_growth = "constant"

    def _heads(self, x: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v (B, heads, L, D), ready to meet, and the gate (B, L, heads D)."""
        (q, k, v, gate), heads = self.widths, (self.heads, self.kv_heads)
        if self.q_norm is None:
            both, values, last = self.qkv(x).split((q + k, v, gate), dim=-1)
            both = split_heads(both, head_dim=self.head_dim)
            if self.position is not None:  # all heads turn alike
                both = self.position(both, ctx)
            return *both.split(heads, dim=1), split_heads(values, head_dim=self.head_dim), last
        queries, keys, values, last = self.qkv(x).split(self.widths, dim=-1)
        if self.norm_width:
            queries, keys = self._normed(queries, keys)
        queries, keys = (split_heads(t, head_dim=self.head_dim) for t in (queries, keys))
        if not self.norm_width:
            queries, keys = self._normed(queries, keys)
        if self.position is not None:
            queries, keys = self.position(queries, ctx), self.position(keys, ctx)
        return queries, keys, split_heads(values, head_dim=self.head_dim), last

    def _normed(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return (q, k) if self.q_norm is None or self.k_norm is None else (self.q_norm(q), self.k_norm(k))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        if x.dim() > 3:
            grid = tuple(x.shape[1:-1])
            return self(x.flatten(1, -2), ctx.but(grid=grid), state).unflatten(1, grid)
        if ctx.bounds is not None:
            return by_sequence(self, x, ctx)
        q, k, v, gate = self._heads(x, ctx)
        if self._by_blocks(x.shape[1], ctx, state):
            assert self.window is not None
            return self._out(sliding_window(q, k, v, self.window, self.scale), gate)
        places = None
        if state is not None:
            k, v, places = state.cache("seen").append(k, v, ctx.padding)
        if ctx.record is not None and CLASS_ROW in ctx.record:
            ctx.record[CLASS_ROW] = self._first_row(q, k)
        causal = ctx.causal or state is not None
        mask, is_causal = attention_mask(q, k, ctx, places, causal=causal, window=self.window)
        if self.kv_heads != self.heads and torch.compiler.is_compiling():  # exporters know no grouped heads
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        if mask is None and not is_causal and k.shape[1] == self.heads:
            return self._out(softmax_attention(q, k, v, None, self.scale), gate)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_causal, scale=self.scale, enable_gqa=k.shape[1] != self.heads
        )
        return self._out(y, gate)

    def _first_row(self, q: Tensor, k: Tensor) -> Tensor:
        """(B, L) weights of the first token's attention, the mean over heads."""
        first = q[:, :, :1].unflatten(1, (k.shape[1], -1))[:, :, :, 0]  # (B, kv_heads, heads of each, D)
        return (first @ k.mT * self.scale).softmax(-1).flatten(1, 2).mean(1)

    def _out(self, y: Tensor, gate: Tensor) -> Tensor:
        y = join_heads(y)
        return self.out(y * gate.sigmoid() if self.widths[3] else y)

    def _by_blocks(self, length: int, ctx: Context, state: State | None) -> bool:
        """Whether rows are long, whole and begin here, so that a window needs no mask of all pairs."""
        plain = state is None and ctx.causal and ctx.padding is None and ctx.key_padding is None
        if self.window is None or not plain or torch.compiler.is_compiling():
            return False
        return length > LONG * self.window

    def new_state(self, batch: int, capacity: int) -> State:
        like = self.out.weight
        sizes = batch, self.kv_heads, capacity, self.head_dim
        if self.window is None:
            return State(seen=Cache.empty(like, *sizes))
        return State(seen=Window.empty(like, *sizes, size=self.window))

    def macs(self, tokens: int, past: int = 0) -> int:
        seen = tokens + past if self.window is None else min(self.window, tokens + past)
        return 2 * self.heads * self.head_dim * tokens * seen
