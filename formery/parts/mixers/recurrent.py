"""What linear recurrences with one memory share: short convolution, memory, steps, unit vectors, gated norm."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Slot, State
from ...errors import BadSpec
from ...ops import short_convolution
from ...ops.exponential import exp
from ...ops.rms_norm import rms_norm
from .ragged import carried_convolution


def wide(dtype: torch.dtype) -> torch.dtype:
    """What memories and decays are computed in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def taps(width: int, length: int | None) -> nn.Parameter | None:
    """Weights (width, length) of a short convolution, uniform within 1 / sqrt(length); None where it has no length."""
    if length is None:
        return None
    if length < 1:
        raise BadSpec(f"conv is at least 1 (the token itself) or null for none, got {length}")
    return nn.Parameter(torch.empty(width, length).uniform_(-(length**-0.5), length**-0.5))


def tap_macs(weight: Tensor | None, tokens: int) -> int:
    """Multiply-accumulates of a short convolution of `tokens` tokens; none where there is none."""
    return 0 if weight is None else short_convolution.macs(1, tokens, *weight.shape)


def draw_steps(bias: Tensor) -> None:
    """Biases whose softplus is a step drawn evenly, in its logarithm, from 0.001 to 0.1 (arXiv 2312.00752, 3.6)."""
    step = torch.empty_like(bias).uniform_(math.log(1e-3), math.log(0.1)).exp().clamp(min=1e-4)
    bias.copy_(step + (-torch.expm1(-step)).log())  # inverse softplus


def rates(log_rate: Tensor) -> Tensor:
    """-exp(log_rate), float32 at least: the rates of decay that are learned as logarithms."""
    return -exp(log_rate.to(wide(log_rate.dtype)))


def convolved(
    x: Tensor,
    weight: Tensor | None,
    state: State | None,
    lengths: Tensor | None,
    activation: Callable[[Tensor], Tensor] | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """activation(short convolution of x); x as it is where there is none."""
    if weight is None:
        return x
    y = carried_convolution(x, weight, bias, state, lengths)
    return y if activation is None else activation(y)


def memory_of(state: State | None, batch: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """The memory (batch, *shape) that a state carries; zeros where nothing is carried."""
    if state is not None:
        return state.slot("memory").value
    return torch.zeros(batch, *shape, dtype=wide(like.dtype), device=like.device)


def remember(state: State | None, memory: Tensor) -> None:
    """Hand the memory on to what follows, where somebody streams."""
    if state is not None:
        state.slot("memory").put(memory)


def fresh_state(like: Tensor, batch: int, shape: tuple[int, ...], weight: Tensor | None) -> State:
    """A state with a memory (batch, *shape), and the last inputs of the short convolution of `weight`."""
    memory = Slot(like.new_zeros(batch, *shape, dtype=wide(like.dtype)))
    if weight is None:
        return State(memory=memory)
    return State(tail=Slot(like.new_zeros(batch, weight.shape[1] - 1, weight.shape[0])), memory=memory)


def unit(x: Tensor) -> Tensor:
    """x / sqrt(sum of x^2 + 1e-6) along the last axis, the sum in float32 at least."""
    length = x.to(wide(x.dtype)).square().sum(-1, keepdim=True)
    return x * torch.rsqrt(length + 1e-6).to(x.dtype)


def normed(o: Tensor, weight: Tensor, gate: Tensor | None, eps: float, dtype: torch.dtype) -> Tensor:
    """RMS norm of the last axis of o (B, L, ..., V), its axes joined, then silu(gate) (B, L, ...) as a factor."""
    y = (rms_norm(o.to(wide(o.dtype)), None, eps).to(dtype) * weight).flatten(2)
    return y if gate is None else y * F.silu(gate)
