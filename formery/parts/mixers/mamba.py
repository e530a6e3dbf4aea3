"""Mamba's mixer (arXiv 2312.00752, section 3.4 and algorithm 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import selective_scan as scan
from ...ops.linear import linear
from ...ops.remembered import Remembered
from ..dense import Dense
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, draw_steps, fresh_state, rates, remember, tap_macs, taps, wide


class Mamba(Mixer):
    """A diagonal linear recurrence whose step, input and read-out vectors are chosen by the token, gated.

    `inner` channels (twice the width unless given), each with `state` numbers. A causal depthwise convolution of `conv`
    taps and SiLU stand before the recurrence; from what comes out of them, a projection to `rank` numbers (a sixteenth
    of the width unless given) makes the step of each channel, and the vectors of input and read-out. No norm inside.
    `bias` is that of the projections in and out. Without `selective` step and vectors are the same for every token, as
    in the structured recurrences before it (table 1). The state is float32 at least.
    """

    EXAMPLES = (
        {"state": 4},
        {"inner": 24, "state": 3, "rank": 5, "conv": 1, "bias": True},
        {"inner": 40, "state": 2, "conv": 3, "conv_bias": False, "selective": False},
    )
    unseen = ("selective",)
    grids = (1,)
    causal, streams, packs = "always", "any", True
    reads, writes = ("project",), ("out",)
    undecayed = ("log_rate", "skip", "step_bias")

    def __init__(
        self,
        dim: int,
        *,
        inner: int | None = None,
        state: int = 16,
        rank: int | None = None,
        conv: int = 4,
        bias: bool = False,
        conv_bias: bool = True,
        selective: bool = True,
    ) -> None:
        super().__init__()
        inner = 2 * dim if inner is None else inner
        rank = math.ceil(dim / 16) if rank is None else rank
        if min(inner, state, rank, conv) < 1:
            raise BadSpec(f"inner ({inner}), state ({state}), rank ({rank}) and conv ({conv}) are at least 1")
        self.inner, self.selective, self.widths = inner, selective, (rank, state, state)
        """Of the projection that selects: the step, the vectors of input and of read-out."""
        self.project = Dense(dim, 2 * inner, bias=bias)
        self.conv = taps(inner, conv)
        self.conv_bias = nn.Parameter(torch.zeros(inner)) if conv_bias else None
        self.select = Dense(inner, sum(self.widths), bias=False)
        self.step_weight = nn.Parameter(torch.empty(inner, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.step_bias = nn.Parameter(torch.empty(inner))
        self.log_rate = nn.Parameter(torch.empty(state, inner))
        self.rates = Remembered(rates)
        self.skip = nn.Parameter(torch.ones(inner))
        if not self.log_rate.is_meta:
            self._draw_rates()
        self.out = Dense(inner, dim, bias=bias)

    @torch.no_grad()
    def _draw_rates(self) -> None:
        """Rates 1, 2, ..., `state` in every channel (S4D-real), steps of 0.001 to 0.1 (section 3.6)."""
        rates = torch.arange(1, self.log_rate.shape[0] + 1, dtype=self.log_rate.dtype, device=self.log_rate.device)
        self.log_rate.copy_(rates.log()[:, None].expand_as(self.log_rate))
        draw_steps(self.step_bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        u, gate = self.project(x).split(self.inner, dim=-1)
        u = convolved(u, self.conv, state, lengths, F.silu, self.conv_bias)
        seen = u if self.selective else torch.ones_like(u)
        step, b, c = self.select(seen).split(self.widths, dim=-1)
        kind = wide(x.dtype)
        if x.dtype == kind:
            dt = F.softplus(linear(step, self.step_weight, self.step_bias))
        else:  # the bias, near -5, would round away what the token says
            dt = F.softplus(linear(step, self.step_weight).to(kind) + self.step_bias.to(kind))
        if lengths is not None:  # padding neither decays nor writes
            dt = dt * real(x, lengths)[..., None]
        memory = None if state is None else state.slot("memory").value
        grouped_u, dt, b, c = (t[:, :, None] for t in (u, dt, b, c))  # one group
        decay = self.rates(self.log_rate)[None]
        y, memory = scan.selective_scan(grouped_u, dt, decay, b, c, memory, overwrite=True)
        remember(state, memory)
        y = torch.addcmul(y[:, :, 0], u, self.skip)
        return self.out(F.silu(gate).mul_(y))

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (1, *self.log_rate.shape), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        recurrence: int = scan.macs(1, tokens, self.inner, self.log_rate.shape[0])
        return recurrence + tap_macs(self.conv, tokens) + tokens * self.step_weight.numel()
