"""The gated delta rule: Gated DeltaNet (arXiv 2412.06464), equation 10.

S_t = exp(g_t) S_{t-1} + k_t (beta_t (v_t - (exp(g_t) S_{t-1})^T k_t))^T,   o_t = S_t^T q_t

Shapes: q, k (B, L, H, K); v (B, L, H, V); g, beta (B, L, H) with g <= 0 the log decay; states (B, H, K, V), at least
float32.
Every form returns o (B, L, H, V) in v's dtype and the last state, and changes none of its inputs. Scaling of q and
normalisation of q and k are the caller's; heads that share keys are repeated by the caller.
"""

from __future__ import annotations

from torch import Tensor

from .chunked import chunked
from .reference import reference, step

__all__ = ["chunked", "gated_delta_rule", "macs", "reference", "step"]


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fastest form for these inputs; `state` None means zeros."""
    if state is None:
        state = v.new_zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1])
    return reference(q, k, v, g, beta, state) if q.shape[1] == 1 else chunked(q, k, v, g, beta, state)


def macs(batch: int, length: int, heads: int, key: int, value: int) -> int:
    """Multiply-accumulates of the recurrence, whatever form computes it.

    Each token of a head asks a key x value state for its prediction, corrects it and reads it: three such products.
    The decay only scales the state, which is no multiply-accumulate.
    """
    return batch * length * heads * 3 * key * value
