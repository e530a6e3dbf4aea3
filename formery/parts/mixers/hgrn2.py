"""HGRN-2 (arXiv 2404.07904): HGRN's gates over a memory of outer products."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import gated_linear_attention as rule
from ..dense import Dense
from ..widths import positive
from .forget import log_forget, written
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, fresh_state, memory_of, normed, remember, tap_macs, taps, wide


class HGRN2(Mixer):
    """Gated linear attention whose keys are what its gates forget: S = diag(f) S + (1 - f) i^T, read by silu(q).

    Heads of `head_dim` channels, keys and values alike. The gate f stays above the bound that the body gives this
    block, where it gives one. `conv` taps of a causal convolution may stand before q, f and i. The norm goes over the
    whole width; there is no gate behind it.
    """

    EXAMPLES = ({"head_dim": 8}, {"head_dim": 16, "conv": 3})
    unseen = ("eps",)
    grids = (1,)
    causal, streams, packs, bounded = "always", "any", True, True
    reads, writes = ("project",), ("out",)

    def __init__(self, dim: int, *, head_dim: int = 128, conv: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        if dim % positive("head_dim", head_dim):
            raise BadSpec(f"head_dim ({head_dim}) does not divide the width {dim}; choose a divisor")
        self.dim, self.heads, self.head_dim, self.eps = dim, dim // head_dim, head_dim, eps
        self.project = Dense(dim, 3 * dim, bias=False)
        """q, f and i."""
        self.conv = taps(3 * dim, conv)
        self.norm = nn.Parameter(torch.ones(dim))
        self.out = Dense(dim, dim, bias=False)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        q, raw, i = convolved(self.project(x), self.conv, state, lengths).chunk(3, dim=-1)
        raw = raw.to(wide(x.dtype))
        g, k = log_forget(raw, ctx.lower_bound), written(raw, ctx.lower_bound)
        if lengths is not None:  # padding neither decays nor writes
            counts = real(x, lengths)[..., None]
            g, k = g * counts, k * counts
        q = F.silu(q) * self.head_dim**-0.5
        q, k, v, g = (part.unflatten(-1, (self.heads, -1)) for part in (q, k, i, g))
        memory = memory_of(state, x.shape[0], (self.heads, self.head_dim, self.head_dim), x)
        o, memory = rule.gated_linear_attention(q, k, v, g, memory)
        remember(state, memory)
        return self.out(normed(o.flatten(2), self.norm, None, self.eps, x.dtype))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (self.heads, self.head_dim, self.head_dim), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, self.heads, self.head_dim, self.head_dim) + tap_macs(self.conv, tokens)
