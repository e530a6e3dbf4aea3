"""The delta rule within chunks: what each chunk's corrections need, all chunks at once, one triangular inverse a chunk.

With A_ij = beta_i (k_i . k_j) exp(c_i - c_j) for j < i and T = (I + A)^-1, the corrected values of a chunk are
U = T beta V - T beta exp(c) K S; both factors that do not depend on the state S are made here. GATE is 0 without decay.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import between, grown, numbers, product, put_rows, rows, rows_across


@triton.jit
def unit_lower_inverse(A, at, LEVELS: tl.constexpr, HOW: tl.constexpr):
    """(I + A)^-1 of a strictly lower A (C, C), C = 2^LEVELS: blocks of 2, 4, 8... rows from smaller ones.

    [[a, 0], [b, c]]^-1 = [[a^-1, 0], [-c^-1 b a^-1, c^-1]]: direct like a substitution, no series.
    """
    inverse = tl.where(at[:, None] == at[None, :], 1.0, 0.0)
    inverse -= tl.where((at[:, None] == at[None, :] + 1) & (at[:, None] % 2 == 1), A, 0.0)
    for level in range(1, LEVELS):
        part = at >> level
        below = (part[:, None] == part[None, :] + 1) & (part[:, None] % 2 == 1)
        inverse -= product(product(inverse, tl.where(below, A, 0.0), HOW), inverse, HOW)
    return inverse


@triton.jit
def solve(
    k, v, g, beta, inverse, w, u, L, H, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr, SOLVE: tl.constexpr,
):  # fmt: skip
    """T in `inverse` (B, L, H, C), T beta exp(c) K in w, T beta V in u."""
    n, bh = tl.program_id(0) % NC, tl.program_id(0) // NC
    b, h, start = bh // H, bh % H, n * C
    at = tl.arange(0, C)
    step = numbers(beta, b, h, start, at, start + at < L)
    A = tl.zeros((C, C), tl.float32)
    for first in range(0, K, BK):
        down = first + tl.arange(0, BK)
        A += product(rows(k, b, h, start, at, down, L, K), rows_across(k, b, h, start, at, down, L, K), HOW)
    if GATE == 1:
        A *= between(g, b, h, start, at, L)
    A = tl.where(at[:, None] > at[None, :], A * step[:, None], 0.0)
    T = unit_lower_inverse(A, at, LEVELS, SOLVE)
    put_rows(inverse, b, h, start, at, at, L, C, T)
    for first in range(0, V, BV):
        across = first + tl.arange(0, BV)
        values = rows(v, b, h, start, at, across, L, V) * step[:, None]
        put_rows(u, b, h, start, at, across, L, V, product(T, values, HOW))
    if GATE == 1:
        step *= grown(g, b, h, start, at, L)
    for first in range(0, K, BK):
        down = first + tl.arange(0, BK)
        keys = rows(k, b, h, start, at, down, L, K) * step[:, None]
        put_rows(w, b, h, start, at, down, L, K, product(T, keys, HOW))
