"""State space duality by Triton kernels, forwards and backwards: for tensors on CUDA devices, states of any size.

It is linear attention of queries c, keys b and values x, with one decay a head and token; the heads of a group share
their keys in the kernels too, so that b and c are read, and their gradients added up, once a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..kernels import linear_attention as linear
from ..recomputed import Rule, recomputed
from .traced import differentiable


def forward(
    x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int = linear.CHUNK
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) in x's dtype and the last state."""
    return linear.forward(c, b, x, g, state, chunk)


def backward(
    x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, d_y: Tensor, d_state: Tensor,
    chunk: int = linear.CHUNK, *, decays: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, g (None without `decays`), b, c and the state."""
    d_c, d_b, d_x, d_g, before = linear.backward(c, b, x, g, state, d_y, d_state, chunk, decays=decays)
    return d_x, d_g, d_b, d_c, before


def _backward(
    inputs: Sequence[Any], d_y: Tensor, d_state: Tensor, asked: Sequence[bool], chunk: int
) -> tuple[Tensor | None, ...]:
    x, g, b, c, state = inputs
    return backward(x, g, b, c, state, d_y, d_state, chunk, decays=asked[1])


def fused(
    x: Tensor, g: Tensor, b: Tensor, c: Tensor, state: Tensor, chunk: int = linear.CHUNK
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens, a power of 2 from 16 on.

    What products round is said in `kernels.launch.precision`. Memory beyond inputs and outputs: a state a chunk.
    """
    rule = Rule(partial(forward, chunk=chunk), partial(_backward, chunk=chunk), differentiable)
    return recomputed(rule, x, g, b, c, state)
