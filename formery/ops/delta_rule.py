"""The delta rule: DeltaNet (arXiv 2406.06484), the gated delta rule without its decay.

S_t = S_{t-1} + k_t (beta_t (v_t - S_{t-1}^T k_t))^T,   o_t = S_t^T q_t

Shapes, dtypes and forms are those of `gated_delta_rule`, without g. In chunks the decay costs time even where it is
none (1.1 to 1.4 times the forward, AMD EPYC, torch 2.13), so chunks leave it out; a single token, and whoever compiles
or traces, get a decay of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import gated_delta_rule as gated
from .forms import one, transformed, without_autocast
from .gated_delta_rule import macs as macs
from .profiled import SCAN, profiled


def reference(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition: what the state predicts for k is moved towards v by the fraction beta."""
    return gated.reference(q, k, v, torch.zeros_like(beta), beta, state)


def chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`reference` by chunks of `chunk` tokens (None: the fastest here)."""
    return gated.chunked(q, k, v, None, beta, state, chunk)


@profiled(SCAN)
def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs where they are used; `state` None means zeros."""
    if one(q.shape[1]) or transformed() or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return gated.gated_delta_rule(q, k, v, torch.zeros_like(beta), beta, state)
    if state is None:
        dtype = torch.promote_types(v.dtype, torch.float32)
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1], dtype=dtype)
    start = state
    return without_autocast(v, lambda: gated.by_chunks(q, k, v, None, beta, start))
