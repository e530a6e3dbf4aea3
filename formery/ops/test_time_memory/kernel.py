"""Memories of one matrix and endless features: what they read, by the kernel of the features alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .chunked import Piece, sums
from .rule import Gates, Rule, closed


def by_kernel(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, rule: Rule, kernel: Callable[[Tensor], Tensor] = torch.exp
) -> Tensor:
    """o (B, L, H, V) of a matrix memory with the objective "dot", from zero, whose features have the inner product
    `kernel(x . y)`: the exponential for phi*, all monomials (arXiv 2505.23735). Costs L^2 as attention does.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    gates = closed(gates, None, dtype)
    past = rule.window - 1

    def heads(x: Tensor, before: int = 0) -> Tensor:
        x = x.to(dtype).transpose(1, 2)
        return torch.cat([x.new_zeros(*x.shape[:2], before, *x.shape[3:]), x], dim=2)

    assert gates.write is not None
    assert gates.weight is not None
    piece = Piece(
        heads(q), heads(k, past), heads(v, past), heads(gates.retain), heads(gates.rate), heads(gates.write),
        heads(gates.weight, past), None if gates.momentum is None else heads(gates.momentum),
    )  # fmt: skip
    by = sums(piece, rule)
    return ((kernel(piece.q @ piece.k.mT) * (by.steps @ by.pairs)) @ piece.v).transpose(1, 2).to(v.dtype)
