"""Linear attention with a decay (arXiv 2312.06635 GLA, 2404.07904 HGRN-2, 2307.08621 RetNet) or without (2006.16236).

S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t

Shapes: q, k (B, L, H, K); v (B, L, H, V); states (B, H, K, V). The log decay g <= 0 is one number a key channel
(B, L, H, K), a head and token (B, L, H), a head (H,), or None for no decay. Every form returns o (B, L, H, V) in v's
dtype and the last state (float32 at least, whatever the inputs), computes in the state's dtype, and changes none of its
inputs. Scaling of q is the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import backend
from ..forms import one, transformed, without_autocast
from ..profiled import SCAN, profiled
from .chunked import chunked
from .compiled import operator
from .reference import by_token, reference, step
from .traced import differentiable, exported

__all__ = [
    "chunked", "compiled", "differentiable", "exported", "gated_linear_attention", "macs", "reference", "step",
]  # fmt: skip


@profiled(SCAN)
def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs where they are used; `state` None means zeros.

    Inside `torch.autocast` as outside: the inputs' dtypes say what is computed in, and the state is not rounded.
    """
    if state is None:
        dtype = torch.promote_types(v.dtype, torch.float32)
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1], dtype=dtype)
    start = state
    return without_autocast(v, lambda: _fastest(q, k, v, g, start))


def compiled(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """`chunked` as one operator of a compiled graph."""
    found: tuple[Tensor, Tensor] = operator(q, k, v, by_token(g, k), state)
    return found


def _fastest(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    if transformed():
        return differentiable(q, k, v, g, state)
    if one(q.shape[1]):
        decay = by_token(g, k)
        o, state = step(q[:, 0], k[:, 0], v[:, 0], None if decay is None else decay[:, 0], state)
        return o[:, None], state
    if torch.compiler.is_exporting():
        return exported(q, k, v, g, state)
    if torch.compiler.is_compiling():
        return compiled(q, k, v, g, state)
    if backend.takes_kernels(q, k, v, g, state):
        from .fused import fused

        return fused(q, k, v, g, state)
    return (reference if backend.mode() == "reference" else chunked)(q, k, v, g, state)


def macs(batch: int, length: int, heads: int, key: int, value: int) -> int:
    """Multiply-accumulates of the recurrence, whatever form computes it.

    Each token of a head writes to a key x value state and reads it. The decay only scales the state, which is no
    multiply-accumulate.
    """
    return batch * length * heads * 2 * key * value
