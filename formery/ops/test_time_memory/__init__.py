"""Memories that are trained while they read: Titans (arXiv 2501.00663), the Omega rule and Atlas (arXiv 2505.23735).

The memory M is a network, from one matrix to an MLP, whose weights W are the state. Every token takes a step on the
last `window` pairs of key and value, and then its query is read:

    g_t = sum_{i = t - window + 1 .. t} weight_i grad l(W_0; k_i, v_i)
    S_t = exp(momentum_t) S_{t-1} + write_t g_t                       (without momentum: write_t g_t)
    W_t = exp(retain_t) W_{t-1} - rate_t S_t                          (orthogonal: NS_5(S_t))
    o_t = M(W_t; q_t)

l is |M(k) - v|^2 or -M(k) . v. W_0 are the weights before the chunk of `chunk` tokens that t is in: the chunk is part
of the definition, and with chunk 1 this is the rule online. Titans is window 1 with its rate in `write` and `rate` 1;
the Omega rule has no momentum; Atlas has momentum and orthogonal steps. One matrix, "dot" and `rate` 1 are linear
attention, over a sliding window where that is longer than 1.

Shapes: q, k (B, L, H, K); v (B, L, H, V); gates (B, L, H). Every form returns o (B, L, H, V) in v's dtype and what is
carried on (float32 at least), computes in the memory's dtype, and changes none of its inputs. Of each row the first
`lengths` (B,) tokens count, all where that is None. Features of keys and queries, their norms and scales are the
caller's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import newton_schulz as orthogonal
from ..forms import one, without_autocast
from ..profiled import SCAN, profiled
from .chunked import apart, chunked, together
from .compiled import compiled
from .kernel import by_kernel
from .reference import reference
from .rule import Gates, Memory, Objective, Rule, Weights, fresh
from .traced import exported

__all__ = [
    "Gates", "Memory", "Objective", "Rule", "Weights", "apart", "by_kernel", "chunked", "compiled", "exported",
    "fresh", "macs", "reference", "together", "trained_memory",
]  # fmt: skip


@profiled(SCAN)
def trained_memory(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None = None
) -> tuple[Tensor, Memory]:
    """The form for where it is used. Inside `torch.autocast` as outside: the memory is not rounded."""
    return without_autocast(v, lambda: _form(q, k, v, gates, memory, rule, lengths))


def _form(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory, rule: Rule, lengths: Tensor | None
) -> tuple[Tensor, Memory]:
    if torch.compiler.is_exporting() and not one(q.shape[1]):
        return exported(q, k, v, gates, memory, rule, lengths)
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return compiled(q, k, v, gates, memory, rule, lengths)
    return chunked(q, k, v, gates, memory, rule, lengths)


def macs(length: int, heads: int, shapes: tuple[tuple[int, int], ...], rule: Rule) -> int:
    """Multiply-accumulates of the recurrence for one row, whatever form computes it; `shapes` of the matrices.

    Each token sends its key forward (as far as the loss's gradient depends on it) and the gradient back to the first
    layer's output, writes an outer product, takes out that of the pair that leaves the window, and reads. Gates only
    scale. Orthogonal steps add the products of Newton-Schulz.
    """
    sizes = [rows * columns for rows, columns in shapes]
    forward = sum(sizes) if rule.objective == "regression" else sum(sizes[:-1])
    each = forward + sum(sizes[1:]) + sum(sizes) * (2 + (rule.window > 1))
    if rule.orthogonal:
        each += sum(orthogonal.macs(*shape) for shape in shapes)
    return length * heads * each
