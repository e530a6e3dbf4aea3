"""The gated delta rule: Gated DeltaNet (arXiv 2412.06464), equation 10.

S_t = exp(g_t) S_{t-1} + k_t (beta_t (v_t - (exp(g_t) S_{t-1})^T k_t))^T,   o_t = S_t^T q_t

Shapes: q, k (B, L, H, K); v (B, L, H, V); g, beta (B, L, H) with g <= 0 the log decay; states (B, H, K, V).
Every form returns o (B, L, H, V) in v's dtype and the last state (float32 at least, whatever the inputs), computes in
the state's dtype, and changes none of its inputs. Scaling of q, normalisation of q and k, and repeating heads that
share keys are the caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import backend
from ..forms import one, transformed, without_autocast
from ..profiled import SCAN, profiled
from .chunked import chunked
from .compiled import compiled
from .reference import reference, step
from .traced import differentiable, exported

__all__ = ["chunked", "compiled", "differentiable", "exported", "gated_delta_rule", "macs", "reference", "step"]


@profiled(SCAN)
def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs where they are used; `state` None means zeros.

    Inside `torch.autocast` as outside: the inputs' dtypes say what is computed in, and the state is not rounded.
    """
    if state is None:
        dtype = torch.promote_types(v.dtype, torch.float32)
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1], dtype=dtype)
    begun = state
    return without_autocast(v, lambda: _fastest(q, k, v, g, beta, begun))


def _fastest(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    if transformed():
        return differentiable(q, k, v, g, beta, state)
    if one(q.shape[1]):
        o, state = step(q[:, 0], k[:, 0], v[:, 0], g[:, 0], beta[:, 0], state)
        return o[:, None], state
    if torch.compiler.is_exporting():
        return exported(q, k, v, g, beta, state)
    if torch.compiler.is_compiling():
        return compiled(q, k, v, g, beta, state)
    return by_chunks(q, k, v, g, beta, state)


def by_chunks(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The form that `backend` asks for where nobody looks on; g None stands for no decay."""
    if backend.takes_kernels(q, k, v, g, beta, state, fits=k.shape[-1] <= backend.KEYS):
        from .fused import fused

        return fused(q, k, v, g, beta, state)
    if backend.mode() == "reference":
        return reference(q, k, v, torch.zeros_like(beta) if g is None else g, beta, state)
    return chunked(q, k, v, g, beta, state)


def macs(batch: int, length: int, heads: int, key: int, value: int) -> int:
    """Multiply-accumulates of the recurrence, whatever form computes it.

    Each token of a head asks a key x value state for its prediction, corrects it and reads it: three such products.
    The decay only scales the state, which is no multiply-accumulate.
    """
    return batch * length * heads * 3 * key * value
