"""The Legendre memory unit as LMUFormer has it (arXiv 2402.04882, section 4; LMU: Voelker et al. 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context, Slot, State
from ...ops import legendre_memory as rule
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from ..dense import Dense, activated
from .mixer import Mixer
from .ragged import along_rows


class LegendreMemory(Mixer):
    """One number a token is written into a memory of a sliding window, and read with the token itself.

    u = f(input(x)); m = the memory of u over `theta` tokens, `order` numbers (the width unless given);
    h = f(hidden([m, x])); then the output's projection, and a norm of it where one is given (published: batch).
    """

    EXAMPLES = ({"order": 8, "theta": 12.0}, {"order": 5, "theta": 40.0, "norm": "batch", "activation": "tanh"})
    unseen = ("theta", "activation")
    grids = (1,)
    causal, streams, packs = "always", "any", True
    powers: Tensor
    impulse: Tensor

    def __init__(
        self,
        dim: int,
        *,
        order: Annotated[int, Field(gt=1)] | None = None,
        theta: Annotated[float, Field(gt=0)] = 128.0,
        activation: Activation = "relu",
        norm: NormSpec | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("legendre_memory")
        self.order, self.theta, self.activation = dim if order is None else order, theta, activation
        self.input = Dense(dim, 1)
        self.hidden = Dense(self.order + dim, dim)
        self.out = Dense(dim, dim)
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.writes = ("out",) if norm is None else ("norm",)
        self.looks_at_batch = getattr(self.norm, "looks_at_batch", False)
        keep_tables(self, self.order, theta)

    def reset_derived(self) -> None:
        keep_tables(self, self.order, self.theta)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        u = activated(self.input, x, self.activation)
        m = remembered(u, rule.Tables(self.powers, self.impulse), state, lengths)
        h = ACTIVATIONS[self.activation](self.hidden(torch.cat([m.flatten(2).to(x.dtype), x], dim=-1)))
        y: Tensor = self.out(h)
        return y if self.norm is None else self.norm(y)

    def new_state(self, batch: int, capacity: int) -> State:
        return State(memory=Slot(self.impulse.new_zeros(batch, 1, self.order)))

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, 1, self.order)


def keep_tables(module: nn.Module, order: int, theta: float) -> None:
    """Put the memory's tables on the module, in its weights' dtype but float32 at least; they are not saved."""
    like = next(module.parameters())
    dtype = torch.promote_types(like.dtype, torch.float32)
    for name, table in rule.tables(order, theta)._asdict().items():
        empty = torch.empty(table.shape, dtype=dtype, device=like.device)
        module.register_buffer(name, empty if like.is_meta else empty.copy_(table), persistent=False)


def remembered(u: Tensor, tables: rule.Tables, state: State | None, lengths: Tensor | None) -> Tensor:
    """Memories (B, L, D, order) of rows u (B, L, D), of which the first `lengths` (B,) count; the state moves on."""
    if state is None:
        return rule.legendre_memory(u, tables)[0]
    slot = state.slot("memory")
    before = slot.value
    m, last = rule.legendre_memory(u, tables, before)
    slot.put(last if lengths is None else at_end(m, before, lengths))
    return m


def at_end(x: Tensor, before: Tensor, lengths: Tensor) -> Tensor:
    """What rows x (B, L, ...) hold at the last of their first `lengths` (B,) steps; `before` (B, ...) where that is
    none."""
    together = torch.cat([before[:, None].to(x.dtype), x], dim=1)
    return together[torch.arange(len(x), device=x.device), lengths]
