"""Gated linear attention (arXiv 2312.06635)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import gated_linear_attention as rule
from ..dense import Dense
from ..widths import shared_width
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, normed, remember, tap_macs, taps, wide


class GLA(Mixer):
    """Linear attention whose memory forgets by a gate of each key channel.

    `heads` heads with keys of `head_dim` (together half the width unless given) and values of `value_dim` (together
    the width). The gate, in logarithms, is a sigmoid's over `smoothing`, its input projected through `rank` channels.
    `conv` taps of a causal convolution and SiLU may stand before q, k and v. Each head is normed, gated, and projected.
    """

    EXAMPLES = ({"heads": 2}, {"heads": 3, "head_dim": 4, "value_dim": 5, "rank": 3, "smoothing": 0.5, "conv": 3})
    unseen = ("heads", "eps")
    grids = (1,)
    causal, streams, packs = "always", "any", True
    reads, writes = ("project",), ("out",)

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        value_dim: int | None = None,
        rank: int = 16,
        smoothing: float = 16.0,
        conv: int | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        head_dim = shared_width("head_dim", head_dim, dim // 2, heads)
        value_dim = shared_width("value_dim", value_dim, dim, heads)
        if rank < 1 or smoothing <= 0:
            raise BadSpec(f"rank is at least 1 and smoothing positive, got {rank} and {smoothing}")
        self.heads, self.head_dim, self.value_dim, self.smoothing, self.eps = heads, head_dim, value_dim, smoothing, eps
        keys, values = heads * head_dim, heads * value_dim
        self.mixed_widths = (keys, keys, values)
        self.widths = (sum(self.mixed_widths), values, rank)
        """Of the one projection: q, k and v together, the output's gate, the decay's first half."""
        self.project = Dense(dim, sum(self.widths), bias=False)
        self.conv = taps(self.widths[0], conv)
        self.decay = Dense(rank, keys)
        self.norm = nn.Parameter(torch.ones(value_dim))
        self.out = Dense(values, dim, bias=False)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed, gate, low = self.project(x).split(self.widths, dim=-1)
        mixed = convolved(mixed, self.conv, state, lengths, F.silu)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed_widths, dim=-1))
        g = F.logsigmoid(self.decay(low).to(wide(x.dtype))).div(self.smoothing).unflatten(-1, (self.heads, -1))
        if lengths is not None:  # padding neither decays nor writes
            counts = real(x, lengths)[..., None, None]
            g, k = g * counts, k * counts
        memory = memory_of(state, x.shape[0], (self.heads, self.head_dim, self.value_dim), x)
        o, memory = rule.gated_linear_attention(q * self.head_dim**-0.5, k, v, g, memory)
        remember(state, memory)
        return self.out(normed(o, self.norm, gate, self.eps, x.dtype))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (self.heads, self.head_dim, self.value_dim), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, self.heads, self.head_dim, self.value_dim) + tap_macs(self.conv, tokens)
