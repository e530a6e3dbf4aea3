"""Spiking mixers of LMUFormer (arXiv 2402.04882, section 4): batch norm and firing neurons around dense layers.

Their neurons' time is the sequence, so that even a feed-forward network of them mixes tokens: each neuron remembers
what it has gathered since it last fired. Neurons stand in front of dense layers, with real numbers on the residual
stream ("membrane shortcut"), or behind them, with spikes on the stream.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context, Slot, State
from ...errors import BadSpec
from ...ops import legendre_memory as rule
from ...ops.leaky_fire import leaky_fire
from ..dense import Dense
from ..norms.batch import Batch
from .legendre_memory import at_end, keep_tables, remembered
from .mixer import Mixer
from .ragged import along_rows, real

Fires = Literal["before", "after"]
"""Whether neurons stand in front of dense layers or behind them."""


class Neurons(nn.Module):
    """Batch norm, then leaky neurons that integrate and fire; (B, L, C) numbers to spikes."""

    def __init__(self, dim: int, threshold: float = 1.0, tau: float = 2.0) -> None:
        super().__init__()
        self.norm = Batch(dim)
        self.dim, self.threshold, self.tau = dim, threshold, tau

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, slot: str = "neurons"
    ) -> Tensor:
        """Spikes of rows x (B, L, C) of which the first `lengths` (B,) count; the state keeps the potentials."""
        x = self.norm(x)
        if state is None:
            return leaky_fire(x, None, self.threshold, self.tau)[0]
        kept = state.slot(slot)
        before = kept.value
        spikes, potentials = leaky_fire(x, before, self.threshold, self.tau)
        if lengths is None:
            kept.put(potentials[:, -1] if x.shape[1] else before)
        else:
            kept.put(at_end(potentials, before, lengths))
        return spikes

    def new_state(self, batch: int) -> Slot:
        """Potentials of 0."""
        weight = self.norm.weight
        return Slot(weight.new_zeros(batch, self.dim, dtype=torch.promote_types(weight.dtype, torch.float32)))


class Fire(Mixer):
    """Neurons alone: what passes on is spikes of 0 and 1."""

    EXAMPLES = ({}, {"threshold": 0.4, "tau": 1.5})
    grids = (1,)
    causal, streams, packs = "always", "any", True
    looks_at_batch = surrogate = True

    def __init__(self, dim: int, *, threshold: float = 1.0, tau: Annotated[float, Field(ge=1)] = 2.0) -> None:
        super().__init__()
        self.neurons = Neurons(dim, threshold, tau)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(lambda x, _, state, lengths: self.neurons(x, state, lengths), x, ctx, state)

    def new_state(self, batch: int, capacity: int) -> State:
        return State(neurons=self.neurons.new_state(batch))


class SpikingLegendreMemory(Mixer):
    """A Legendre memory that is written, kept and read in spikes.

    u = fire(input(s)); m = fire(memory of u); h = fire(hidden([m, s])); then the output's projection. s is the tokens,
    or what neurons of `first_threshold` in front make of them where it `fires` before; where it fires after, neurons
    stand behind the projection. `order` is twice the width unless given.
    """

    EXAMPLES = (
        {"order": 8, "theta": 12.0, "threshold": 0.02, "first_threshold": 0.2},
        {"order": 6, "theta": 20.0, "threshold": 0.02, "fires": "after"},
    )
    unseen = ("theta",)
    grids = (1,)
    causal, streams, packs = "always", "any", True
    looks_at_batch = surrogate = True
    powers: Tensor
    impulse: Tensor

    def __init__(
        self,
        dim: int,
        *,
        order: Annotated[int, Field(gt=1)] | None = None,
        theta: Annotated[float, Field(gt=0)] = 128.0,
        fires: Fires = "before",
        first_threshold: float = 0.5,
        threshold: float = 1.0,
        tau: Annotated[float, Field(ge=1)] = 2.0,
    ) -> None:
        super().__init__()
        self.order, self.theta = 2 * dim if order is None else order, theta
        self.first = Neurons(dim, first_threshold, tau) if fires == "before" else None
        self.input, self.input_neurons = Dense(dim, 1), Neurons(1, threshold, tau)
        self.memory_neurons = Neurons(self.order, threshold, tau)
        self.hidden, self.hidden_neurons = Dense(self.order + dim, dim), Neurons(dim, threshold, tau)
        self.out = Dense(dim, dim)
        self.norm = Batch(dim) if fires == "before" else None
        self.last = Neurons(dim, threshold, tau) if fires == "after" else None
        keep_tables(self, self.order, theta)

    def reset_derived(self) -> None:
        keep_tables(self, self.order, self.theta)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        s = x if self.first is None else self.first(x, state, lengths, "first")
        u = self.input_neurons(self.input(s), state, lengths, "input")
        m = remembered(u, rule.Tables(self.powers, self.impulse), state, lengths)
        m = self.memory_neurons(m.flatten(2).to(x.dtype), state, lengths, "stored")
        h = self.hidden_neurons(self.hidden(torch.cat([m, s], dim=-1)), state, lengths, "hidden")
        y: Tensor = self.out(h)
        if self.norm is not None:
            return self.norm(y)
        assert self.last is not None
        return self.last(y, state, lengths, "last")

    def new_state(self, batch: int, capacity: int) -> State:
        neurons = {
            "first": self.first, "input": self.input_neurons, "stored": self.memory_neurons,
            "hidden": self.hidden_neurons, "last": self.last,
        }  # fmt: skip
        slots = {name: layer.new_state(batch) for name, layer in neurons.items() if layer is not None}
        return State(memory=Slot(self.impulse.new_zeros(batch, 1, self.order)), **slots)

    def macs(self, tokens: int, past: int = 0) -> int:
        return rule.macs(1, tokens, 1, self.order)


class SpikingMLP(Mixer):
    """Expand to `ratio` times the width and reduce, with neurons in front of both layers, or behind both."""

    EXAMPLES = ({"ratio": 2.0, "threshold": 0.2}, {"ratio": 1.5, "fires": "after", "threshold": 0.1})
    grids = (1,)
    causal, streams, packs = "always", "any", True
    looks_at_batch = surrogate = True

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(gt=0)] = 4.0,
        fires: Fires = "before",
        threshold: float = 1.0,
        tau: Annotated[float, Field(ge=1)] = 2.0,
    ) -> None:
        super().__init__()
        hidden = max(1, int(dim * ratio))
        self.fires_before = fires == "before"
        self.expand, self.reduce = Dense(dim, hidden), Dense(hidden, dim)
        sizes = (dim, hidden) if self.fires_before else (hidden, dim)
        self.first, self.second = (Neurons(size, threshold, tau) for size in sizes)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        if self.fires_before:
            x = self.expand(self.first(x, state, lengths, "first"))
            y: Tensor = self.reduce(self.second(x, state, lengths, "second"))
            return y
        x = self.first(self.expand(x), state, lengths, "first")
        return self.second(self.reduce(x), state, lengths, "second")

    def new_state(self, batch: int, capacity: int) -> State:
        return State(first=self.first.new_state(batch), second=self.second.new_state(batch))


class SpikingAttention(Mixer):
    """Attention of spikes without a softmax: fire(scale * q k^T v), from queries, keys and values that are spikes.

    All tokens see all; neurons in front of the projections, behind them, and behind the product, of which the last have
    no norm and a threshold of their own. What LMUFormer's authors compare their spiking memory with.
    """

    EXAMPLES = ({"heads": 4, "threshold": 0.1, "last_threshold": 0.1},)
    unseen = ("heads", "scale")
    grids = (1,)
    packs = True
    looks_at_batch = surrogate = True

    def __init__(
        self,
        dim: int,
        *,
        heads: Annotated[int, Field(gt=0)] = 4,
        scale: float = 0.25,
        threshold: float = 1.0,
        last_threshold: float = 0.5,
        tau: Annotated[float, Field(ge=1)] = 2.0,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise BadSpec(f"heads ({heads}) does not divide the width {dim}; choose a divisor")
        self.heads, self.scale, self.last_threshold, self.tau = heads, scale, last_threshold, tau
        self.first = Neurons(dim, threshold, tau)
        self.q, self.k, self.v = (Dense(dim, dim, bias=False) for _ in range(3))
        self.q_neurons, self.k_neurons, self.v_neurons = (Neurons(dim, threshold, tau) for _ in range(3))
        self.out, self.norm = Dense(dim, dim), Batch(dim)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        s = self.first(x)
        q, k, v = (
            neurons(layer(s)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, neurons in ((self.q, self.q_neurons), (self.k, self.k_neurons), (self.v, self.v_neurons))
        )
        if lengths is not None:
            k = k * real(x, lengths)[:, None, :, None]
        y = (q @ (k.mT @ v)) * self.scale
        spikes, _ = leaky_fire(y.transpose(1, 2).flatten(2), None, self.last_threshold, self.tau)
        return self.norm(self.out(spikes))

    def macs(self, tokens: int, past: int = 0) -> int:
        dim = self.out.in_features
        return 2 * tokens * dim * dim // self.heads
