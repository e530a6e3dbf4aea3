"""Gated DeltaNet (arXiv 2412.06464) with the options of Olmo Hybrid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import gated_delta_rule as rule
from ...ops.remembered import Remembered
from ..dense import Dense
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import (
    convolved,
    draw_steps,
    fresh_state,
    memory_of,
    normed,
    rates,
    remember,
    tap_macs,
    taps,
    unit,
    wide,
)


class GatedDeltaNet(Mixer):
    """A linear recurrence that forgets by a gate and corrects what it stored by the delta rule.

    `heads` key heads of `head_dim`; `value_heads` (equal unless given, else a multiple) with values of `value_dim`
    (twice the keys unless given). A causal depthwise convolution of `conv` taps and SiLU stand before q, k and v.
    `negative` lets the transition have eigenvalues down to -1, without which parity cannot be tracked
    (arXiv 2411.12537). Norm, then gate, then the output's projection. The state is float32 at least.
    """

    EXAMPLES = (
        {"heads": 2, "head_dim": 8},
        {"heads": 3, "head_dim": 4, "value_dim": 5, "negative": True, "conv": 1},
        {"heads": 2, "value_heads": 4, "head_dim": 4, "conv": 3},
    )
    unseen = ("heads", "negative", "eps")
    grids = (1,)
    causal, streams, packs = "always", "any", True
    reads, writes = ("project",), ("out",)
    undecayed = ("log_rate", "step_bias")

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int = 64,
        value_heads: int | None = None,
        value_dim: int | None = None,
        conv: int = 4,
        negative: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        value_heads = heads if value_heads is None else value_heads
        value_dim = 2 * head_dim if value_dim is None else value_dim
        if min(heads, head_dim, value_heads, value_dim, conv) < 1 or value_heads % heads:
            raise BadSpec(f"value_heads ({value_heads}) is a multiple of heads ({heads}), and all sizes are at least 1")
        self.heads, self.value_heads, self.head_dim, self.value_dim = heads, value_heads, head_dim, value_dim
        keys, values = heads * head_dim, value_heads * value_dim
        self.negative, self.eps = negative, eps
        self.widths = (2 * keys + values, values, value_heads, value_heads)
        """Of the one projection: q, k and v together, the gate, the decay, beta."""
        self.mixed_widths = (keys, keys, values)
        self.project = Dense(dim, sum(self.widths), bias=False)
        self.conv = taps(self.widths[0], conv)
        self.log_rate, self.step_bias = (nn.Parameter(torch.empty(value_heads)) for _ in range(2))
        self.rates = Remembered(rates)
        if not self.log_rate.is_meta:
            self._draw_rates()
        self.norm = nn.Parameter(torch.ones(value_dim))
        self.out = Dense(values, dim, bias=False)

    @torch.no_grad()
    def _draw_rates(self) -> None:
        """Rates up to 16 and steps of 0.001 to 0.1, as Mamba-2 has them (arXiv 2405.21060)."""
        self.log_rate.uniform_(1e-4, 16).log_()
        draw_steps(self.step_bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        mixed, gate, decay, beta = self.project(x).split(self.widths, dim=-1)
        q, k, v = convolved(mixed, self.conv, state, lengths, F.silu).split(self.mixed_widths, dim=-1)
        q, k = (part.unflatten(-1, (self.heads, -1)) for part in (q, k))
        v = v.unflatten(-1, (self.value_heads, -1))
        kind = wide(x.dtype)
        q, k = unit(q) * self.head_dim**-0.5, unit(k)
        if self.value_heads != self.heads:
            q, k = (part.repeat_interleave(self.value_heads // self.heads, dim=2) for part in (q, k))
        beta = beta.to(kind).sigmoid() * (2 if self.negative else 1)
        g = self.rates(self.log_rate) * F.softplus(decay.to(kind) + self.step_bias.to(kind))
        if lengths is not None:  # padding neither decays nor writes
            counts = real(x, lengths)[..., None]
            g, beta = g * counts, beta * counts
        memory = memory_of(state, x.shape[0], self._memory, x)
        o, memory = rule.gated_delta_rule(q, k, v, g, beta, memory)
        remember(state, memory)
        return self.out(normed(o, self.norm, gate, self.eps, x.dtype))

    @property
    def _memory(self) -> tuple[int, int, int]:
        return self.value_heads, self.head_dim, self.value_dim

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, self._memory, self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, *self._memory) + tap_macs(self.conv, tokens)
