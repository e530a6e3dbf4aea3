"""DeltaNet (arXiv 2406.06484): linear attention that corrects what it stored."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops import delta_rule as rule
from ..dense import Dense
from ..widths import shared_width
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, normed, remember, tap_macs, taps, unit, wide


class DeltaNet(Mixer):
    """A memory that is moved towards v, for each key, by the fraction beta of its error; nothing else is forgotten.

    `heads` heads with keys of `head_dim` and values of `value_dim` (both together the width unless given). `conv` taps
    of a causal convolution, then SiLU, stand before q, k and v; q and k have length 1. `negative` lets the transition
    have eigenvalues down to -1. Each head is normed, gated where `gate` is set, and projected.
    """

    EXAMPLES = (
        {"heads": 2},
        {"heads": 3, "head_dim": 4, "value_dim": 5, "conv": 3, "negative": True, "gate": True},
        {"heads": 4, "conv": None},
    )
    unseen = ("heads", "negative", "eps")
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
        conv: int | None = 4,
        negative: bool = False,
        gate: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        head_dim = shared_width("head_dim", head_dim, dim, heads)
        value_dim = shared_width("value_dim", value_dim, dim, heads)
        self.heads, self.head_dim, self.value_dim, self.negative, self.eps = heads, head_dim, value_dim, negative, eps
        keys, values = heads * head_dim, heads * value_dim
        self.mixed_widths = (keys, keys, values)
        self.widths = (sum(self.mixed_widths), values if gate else 0, heads)
        """Of the one projection: q, k and v together, the gate, beta."""
        self.project = Dense(dim, sum(self.widths), bias=False)
        self.conv = taps(self.widths[0], conv)
        self.norm = nn.Parameter(torch.ones(value_dim))
        self.out = Dense(values, dim, bias=False)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed, gate, beta = self.project(x).split(self.widths, dim=-1)
        mixed = F.silu(convolved(mixed, self.conv, state, lengths))
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in mixed.split(self.mixed_widths, dim=-1))
        beta = beta.to(wide(x.dtype)).sigmoid() * (2 if self.negative else 1)
        if lengths is not None:  # padding writes nothing
            beta = beta * real(x, lengths)[..., None]
        memory = memory_of(state, x.shape[0], (self.heads, self.head_dim, self.value_dim), x)
        o, memory = rule.delta_rule(unit(q) * self.head_dim**-0.5, unit(k), v, beta, memory)
        remember(state, memory)
        return self.out(normed(o, self.norm, gate if self.widths[1] else None, self.eps, x.dtype))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (self.heads, self.head_dim, self.value_dim), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, self.heads, self.head_dim, self.value_dim) + tap_macs(self.conv, tokens)
