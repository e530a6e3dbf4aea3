"""Mamba-2's mixer (arXiv 2405.21060, section 7)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...ops import state_space_duality as duality
from ...ops.remembered import Remembered
from ...ops.rms_norm import rms_norm
from ..dense import Dense
from .mixer import Mixer
from .ragged import along_rows, real
from .recurrent import convolved, draw_steps, fresh_state, rates, remember, tap_macs, taps, wide


class Mamba2(Mixer):
    """A linear recurrence with one decay a head, everything projected at once; gate, then norm, then the output.

    `heads` of `head_dim` channels (as many as make twice the width unless given), each with `state` x `head_dim`
    numbers. The vectors of input and read-out are shared by the heads of each of `groups`, and the norm is over each
    group's channels. A causal depthwise convolution of `conv` taps and SiLU stand before the recurrence. Steps stay
    between `min_step` and `max_step`. `bias` is that of the projections in and out. The state is float32 at least.
    """

    EXAMPLES = (
        {"heads": 4, "head_dim": 8, "state": 6},
        {"heads": 6, "head_dim": 4, "groups": 2, "state": 3, "conv": 1, "bias": True, "min_step": 0.3, "max_step": 0.9},
        {"head_dim": 16, "groups": 4, "state": 5, "conv": 3, "conv_bias": False},
    )
    unseen = ("heads", "groups", "min_step", "max_step", "eps")
    grids = (1,)
    causal, streams, packs = "always", "any", True
    reads, writes = ("project",), ("out",)
    undecayed = ("log_rate", "skip", "step_bias")

    def __init__(
        self,
        dim: int,
        *,
        heads: int | None = None,
        head_dim: int = 64,
        groups: int = 1,
        state: int = 128,
        conv: int = 4,
        bias: bool = False,
        conv_bias: bool = True,
        min_step: Annotated[float, Field(ge=0)] = 0.0,
        max_step: Annotated[float, Field(gt=0)] | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        heads = 2 * dim // head_dim if heads is None and head_dim > 0 else heads or 0
        if min(heads, head_dim, groups, state, conv) < 1 or heads % groups:
            raise BadSpec(f"heads ({heads}) is a multiple of groups ({groups}), and all sizes are at least 1")
        if max_step is not None and max_step <= min_step:
            raise BadSpec(f"max_step ({max_step}) is above min_step ({min_step})")
        self.heads, self.head_dim, self.groups, self.state, self.eps = heads, head_dim, groups, state, eps
        self.min_step, self.max_step = min_step, max_step
        inner, vectors = heads * head_dim, groups * state
        self.widths = (inner, inner + 2 * vectors, heads)
        """Of the one projection: the gate; values and vectors of input and read-out together; the step."""
        self.mixed_widths = (inner, vectors, vectors)
        self.project = Dense(dim, sum(self.widths), bias=bias)
        self.conv = taps(self.widths[1], conv)
        self.conv_bias = nn.Parameter(torch.zeros(self.widths[1])) if conv_bias else None
        self.log_rate, self.step_bias = (nn.Parameter(torch.empty(heads)) for _ in range(2))
        self.rates = Remembered(rates)
        self.skip = nn.Parameter(torch.ones(heads))
        if not self.log_rate.is_meta:
            self._draw_rates()
        self.norm = nn.Parameter(torch.ones(inner))
        self.out = Dense(inner, dim, bias=bias)

    @torch.no_grad()
    def _draw_rates(self) -> None:
        """Rates of 1 to 16, steps of 0.001 to 0.1, as the authors' code has them."""
        self.log_rate.uniform_(1, 16).log_()
        draw_steps(self.step_bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        gate, mixed, step = self.project(x).split(self.widths, dim=-1)
        mixed = convolved(mixed, self.conv, state, lengths, F.silu, self.conv_bias)
        values, b, c = mixed.split(self.mixed_widths, dim=-1)
        values = values.unflatten(-1, (self.heads, self.head_dim))
        b, c = (vector.unflatten(-1, (self.groups, self.state)) for vector in (b, c))
        kind = wide(x.dtype)
        dt = F.softplus(step.to(kind) + self.step_bias.to(kind))
        if self.min_step > 0 or self.max_step is not None:
            dt = dt.clamp(self.min_step, self.max_step)
        if lengths is not None:  # padding neither decays nor writes
            dt = dt * real(x, lengths)[..., None]
        memory = None if state is None else state.slot("memory").value
        y, memory = duality.state_space_duality(
            values * dt[..., None], self.rates(self.log_rate) * dt, b, c, memory, overwrite=True
        )
        remember(state, memory)
        y = torch.addcmul(y, values.to(kind), self.skip.to(kind)[:, None])
        return self.out(self._normed(y.flatten(-2), gate))

    def _normed(self, y: Tensor, gate: Tensor) -> Tensor:
        """RMS norm of what passed the gate, each group alone."""
        gated = F.silu(gate.to(y.dtype)).mul_(y).unflatten(-1, (self.groups, -1))
        return rms_norm(gated, self.norm.view(self.groups, -1), self.eps).flatten(-2).to(gate.dtype)

    def new_state(self, batch: int, capacity: int) -> State:
        return fresh_state(self.project.weight, batch, (self.heads, self.state, self.head_dim), self.conv)

    def macs(self, tokens: int, past: int = 0) -> int:
        recurrence: int = duality.macs(1, tokens, self.heads, self.state, self.head_dim)
        return recurrence + tap_macs(self.conv, tokens)
