"""Retention, the mixer of RetNet (arXiv 2307.08621)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import gated_linear_attention as rule
from ...spec import Place, PositionSpec, build
from ..dense import Dense
from ..widths import shared_width
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, normed, remember, tap_macs, taps


class Retention(Mixer):
    """Linear attention whose memory decays at a fixed rate: head h keeps 1 - 2^(-5 - h) of it at each token.

    `heads` heads with keys of `head_dim` (together the width unless given) and values of `value_dim` (together twice
    the width). `position` turns queries and keys: rope (the paper's own xPos scales them too, which the norm of each
    head takes back in part). `conv` taps of a causal convolution and SiLU may stand before q, k and v. Each head is
    normed, gated, and projected.
    """

    EXAMPLES = ({"heads": 4}, {"heads": 3, "head_dim": 4, "value_dim": 5, "position": None, "conv": 3})
    unseen = ("heads", "position", "eps")
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
        position: PositionSpec | None = "rope",
        conv: int | None = None,
        eps: float = 1e-5,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("retention")
        head_dim = shared_width("head_dim", head_dim, dim, heads)
        value_dim = shared_width("value_dim", value_dim, 2 * dim, heads)
        self.heads, self.head_dim, self.value_dim, self.eps = heads, head_dim, value_dim, eps
        keys, values = heads * head_dim, heads * value_dim
        self.mixed_widths = (keys, keys, values)
        self.widths = (sum(self.mixed_widths), values)
        """Of the one projection: q, k and v together, the gate."""
        self.project = Dense(dim, sum(self.widths), bias=False)
        self.conv = taps(self.widths[0], conv)
        self.norm = nn.Parameter(torch.ones(value_dim))
        self.out = Dense(values, dim, bias=False)
        self.position = None
        if position is not None:
            self.position = build("position", position, head_dim, place=place.at("position"))
            if self.position.acts_on != "queries and keys":
                raise BadSpec("position inside retention turns queries and keys: rope; put others on the body")

    def decays(self, like: Tensor) -> Tensor:
        """(H,) log of what each head keeps at a token."""
        heads = torch.arange(self.heads, device=like.device, dtype=torch.float64 if like.is_cpu else torch.float32)
        return torch.log1p(-torch.exp2(-5 - heads)).to(torch.promote_types(like.dtype, torch.float32))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed, gate = self.project(x).split(self.widths, dim=-1)
        mixed = convolved(mixed, self.conv, state, lengths, F.silu)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed_widths, dim=-1))
        if self.position is not None:
            q, k = (self.position(part.transpose(1, 2), ctx).transpose(1, 2) for part in (q, k))
        g = self.decays(x)
        if lengths is not None:  # padding neither decays nor writes
            counts = real(x, lengths)[..., None]
            g, k = g * counts, k * counts[..., None]
        memory = memory_of(state, x.shape[0], (self.heads, self.head_dim, self.value_dim), x)
        o, memory = rule.gated_linear_attention(q * self.head_dim**-0.5, k, v, g, memory)
        remember(state, memory)
        return self.out(normed(o, self.norm, gate, self.eps, x.dtype))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (self.heads, self.head_dim, self.value_dim), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, self.heads, self.head_dim, self.value_dim) + tap_macs(self.conv, tokens)
