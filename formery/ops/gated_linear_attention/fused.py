"""Gated linear attention by Triton kernels, forwards and backwards: for tensors on CUDA devices, heads of any size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..kernels.linear_attention import CHUNK, backward, forward
from ..recomputed import Rule, recomputed
from .reference import by_token
from .traced import differentiable


def _backward(
    inputs: Sequence[Any], d_o: Tensor, d_state: Tensor, asked: Sequence[bool], chunk: int
) -> tuple[Tensor | None, ...]:
    q, k, v, g, state = inputs
    return backward(q, k, v, g, state, d_o, d_state, chunk, decays=asked[3])


def fused(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens, a power of 2 from 16 on.

    What products round is said in `kernels.launch.precision`. Memory beyond inputs and outputs: a state a chunk.
    """
    rule = Rule(partial(forward, chunk=chunk), partial(_backward, chunk=chunk), differentiable)
    return recomputed(rule, q, k, v, by_token(g, k), state)
