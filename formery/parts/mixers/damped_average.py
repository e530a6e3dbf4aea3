"""Mega's damped moving average (arXiv 2209.10655, section 3.1) as a token mixer."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, Slot, State
from ...ops import damped_average as rule
from .mixer import Causality, Mixer, Splits
from .ragged import along_rows, real


class DampedAverage(Mixer):
    """silu(average of each channel in `dims` dimensions + omega x).

    Bidirectional, a second average runs from the end; both hold a token's own input.
    """

    EXAMPLES = ({"dims": 3}, {"dims": 2, "bidirectional": True})
    grids = (1,)
    packs = True
    causal: Causality = "always"
    streams: Splits = "any"
    undecayed = ("delta", "alpha", "beta", "gamma")

    def __init__(self, dim: int, *, dims: Annotated[int, Field(gt=0)] = 16, bidirectional: bool = False) -> None:
        super().__init__()
        self.dim, self.bidirectional = dim, bidirectional
        channels = 2 * dim if bidirectional else dim
        self.delta, self.alpha, self.beta, self.gamma = (nn.Parameter(torch.empty(channels, dims)) for _ in range(4))
        self.omega = nn.Parameter(torch.empty(dim))
        if bidirectional:
            self.causal, self.streams = "never", "no"
        if not self.omega.is_meta:
            self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Mega's first values: signs of the expansion alternate between dimensions."""
        for parameter, std in ((self.delta, 0.2), (self.alpha, 0.2), (self.gamma, 1.0), (self.omega, 1.0)):
            parameter.normal_(std=std)
        signs = 1 - 2 * (torch.arange(self.beta.shape[1], device=self.beta.device) % 2)
        self.beta.normal_(std=0.02).add_(signs.to(self.beta.dtype))

    def rates(self) -> tuple[Tensor, Tensor, Tensor]:
        """keep, write and read of the op, (channels, dims) in float32 at least."""
        wide = torch.promote_types(self.omega.dtype, torch.float32)
        delta, alpha, beta, gamma = (t.to(wide) for t in (self.delta, self.alpha, self.beta, self.gamma))
        p = delta.sigmoid()
        return 1 - p * alpha.sigmoid(), p * beta, gamma * gamma.shape[1] ** -0.5

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        rates = self.rates()
        if self.bidirectional:
            ends = x if lengths is None else x * real(x, lengths)[..., None]
            both = [tuple(rate[part] for rate in rates) for part in (slice(0, self.dim), slice(self.dim, None))]
            forward = rule.damped_average(x, *both[0])[0]
            backward = rule.damped_average(ends.flip(1), *both[1])[0].flip(1)
            return F.silu(forward + backward + x * self.omega)
        if state is None:
            y = rule.damped_average(x, *rates)[0]
            return F.silu(y + x * self.omega)
        slot = state.slot("average")
        before = slot.value
        y, last = rule.damped_average(x, *rates, before)
        slot.put(last if lengths is None else _at_end(x, rates, before, lengths))
        return F.silu(y + x * self.omega)

    def new_state(self, batch: int, capacity: int) -> State | None:
        if self.bidirectional:
            return None
        wide = torch.promote_types(self.omega.dtype, torch.float32)
        return State(average=Slot(self.omega.new_zeros(batch, *self.beta.shape, dtype=wide)))

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, *self.beta.shape)


def _at_end(x: Tensor, rates: tuple[Tensor, Tensor, Tensor], before: Tensor, lengths: Tensor) -> Tensor:
    """States (B, C, n) after the first `lengths` (B,) tokens of rows x (B, L, C) that began with `before`."""
    keep, write, _ = rates
    fade = keep.log()
    left = lengths[:, None] - 1 - torch.arange(x.shape[1], device=x.device)  # (B, L)
    rows = (x * (left >= 0)[..., None]).to(before.dtype)
    faded = (fade[None, None] * left.clamp(min=0)[..., None, None]).exp()  # (B, L, C, n)
    return before * (fade * lengths[:, None, None]).exp() + (rows[..., None] * faded).sum(1) * write
