"""The gated delta rule by Triton kernels, forwards and backwards: for tensors on CUDA devices, keys of up to 256."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..kernels.delta_rule import backward, forward
from ..recomputed import Rule, recomputed
from . import traced


def _backward(
    inputs: Sequence[Any], d_o: Tensor, d_state: Tensor, asked: Sequence[bool], chunk: int | None
) -> tuple[Tensor | None, ...]:
    q, k, v, g, beta, state = inputs
    return backward(q, k, v, g, beta, state, d_o, d_state, chunk)


def _differentiable(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    return traced.differentiable(q, k, v, torch.zeros_like(beta) if g is None else g, beta, state)


def fused(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens, a power of 2 from 16 on (None: by the size of the keys).

    g None stands for no decay. What products round is said in `kernels.launch.precision`. Memory beyond inputs and
    outputs: a state a chunk, and a chunk's triangular inverse, corrected values and keys.
    """
    rule = Rule(partial(forward, chunk=chunk), partial(_backward, chunk=chunk), _differentiable)
    return recomputed(rule, q, k, v, g, beta, state)
