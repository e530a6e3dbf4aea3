"""HGRN, the hierarchically gated recurrent network (arXiv 2311.04823), its real-valued form."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops import gated_scan as rule
from ..dense import Dense
from .forget import forget, written
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, normed, remember, tap_macs, taps, wide


class HGRN(Mixer):
    """A gated recurrence of each channel alone: h = f h + (1 - f) silu(i), then norm, gate and projection.

    The gate f stays above the bound that the body gives this block, where it gives one. `conv` taps of a causal
    convolution may stand before i and f.
    """

    EXAMPLES = ({}, {"conv": 3})
    unseen = ("eps",)
    grids = (1,)
    causal, streams, packs, bounded = "always", "any", True, True
    reads, writes = ("project",), ("out",)

    def __init__(self, dim: int, *, conv: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.project = Dense(dim, 3 * dim, bias=False)
        """i and f together, the output's gate."""
        self.conv = taps(2 * dim, conv)
        self.norm = nn.Parameter(torch.ones(dim))
        self.out = Dense(dim, dim, bias=False)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed, gate = self.project(x).split((2 * self.dim, self.dim), dim=-1)
        i, raw = convolved(mixed, self.conv, state, lengths).to(wide(x.dtype)).chunk(2, dim=-1)
        f, i = forget(raw, ctx.lower_bound), written(raw, ctx.lower_bound) * F.silu(i)
        if lengths is not None:  # padding neither decays nor writes
            counts = real(x, lengths)[..., None]
            f, i = f.masked_fill(~counts, 1), i * counts
        h, memory = rule.gated_scan(i, f, memory_of(state, x.shape[0], (self.dim,), x))
        remember(state, memory)
        return self.out(normed(h, self.norm, gate, self.eps, x.dtype))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (self.dim,), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, self.dim) + tap_macs(self.conv, tokens)
