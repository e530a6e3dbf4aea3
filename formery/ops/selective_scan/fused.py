"""The selective scan by Triton kernels, forwards and backwards: for tensors on CUDA devices, states of up to 64."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..kernels.selective_scan import TOKENS, backward, forward
from ..recomputed import Rule, recomputed
from .traced import differentiable


def _backward(
    inputs: Sequence[Any], d_y: Tensor, d_state: Tensor, asked: Sequence[bool], tokens: int
) -> tuple[Tensor | None, ...]:
    u, dt, A, b, c, state = inputs
    return backward(u, dt, A, b, c, state, d_y, d_state, tokens)


def fused(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, tokens: int = TOKENS
) -> tuple[Tensor, Tensor]:
    """`reference`, `tokens` (a power of 2) at a time, everything in float32."""
    rule = Rule(partial(forward, tokens=tokens), partial(_backward, tokens=tokens), differentiable)
    return recomputed(rule, u, dt, A, b, c, state)
