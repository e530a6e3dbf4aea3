"""Linear attention in which every token sees all (arXiv 2006.16236, equation 5; arXiv 2009.14794, figure 1).

o_i = phi(q_i)^T (sum_j phi(k_j) v_j^T) / (phi(q_i)^T sum_j phi(k_j) + eps): linear in the tokens. Where tokens see
earlier ones alone it is `gated_linear_attention` without a decay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .forms import without_autocast


def reference(q: Tensor, k: Tensor, v: Tensor, eps: float | Tensor) -> Tensor:
    """The weights of all pairs, normed and summed; features q, k (..., L, M) that are not negative, v (..., L, V)."""
    weights = q @ k.mT
    return (weights / (weights.sum(-1, keepdim=True) + eps)) @ v


def linear_attention(q: Tensor, k: Tensor, v: Tensor, eps: float | Tensor) -> Tensor:
    """The same by products with a memory (..., M, V), in the dtype of the features, float32 at least; v's comes out."""
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.float32)

    def work() -> Tensor:
        wide = k.to(dtype)
        memory, total = wide.mT @ v.to(dtype), wide.sum(-2)[..., None]
        queries = q.to(dtype)
        return ((queries @ memory) / (queries @ total + eps)).to(v.dtype)

    return without_autocast(v, work)


def macs(length: int, features: int, value: int) -> int:
    """Multiply-accumulates of one head: each token writes to the memory and reads it, and meets the sum of the keys."""
    return length * features * (2 * value + 1)
