"""Outputs of linear attention, and gradients of its values, all chunks at once. GATE and R as in `decayed_states`."""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import between, block, grown, left, product, put_rows, rows, rows_across


@triton.jit
def outputs(
    q, k, v, g, kept, scores, o, L, H, R, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """O = P V + (exp(c) Q) S, from the states S before each chunk, and P in `scores` where GATE is 2."""
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    tile, n, bh = tl.program_id(0) % tiles_v, tl.program_id(0) // tiles_v % NC, tl.program_id(0) // tiles_v // NC
    b, h, start = bh // H, bh % H, n * C
    at, across = tl.arange(0, C), tile * BV + tl.arange(0, BV)
    found = tl.zeros((C, BV), tl.float32)
    P = tl.zeros((C, C), tl.float32)
    for first in range(0, K, BK):
        down = first + tl.arange(0, BK)
        queries = rows(q, b, h // R, start, at, down, L, K)
        if GATE < 2:
            P += product(queries, rows_across(k, b, h // R, start, at, down, L, K), HOW)
        else:
            queries *= tl.exp(tl.cumsum(rows(g, b, h, start, at, down, L, K), 0))
        found += product(queries, block(kept, (b * NC + n) * H + h, down, across, K, V), HOW)
    if GATE == 1:
        found *= grown(g, b, h, start, at, L)[:, None]
        P *= between(g, b, h, start, at, L)
    if GATE == 2:
        P = rows(scores, b, h, start, at, at, L, C)
    P = tl.where(at[:, None] >= at[None, :], P, 0.0)
    found += product(P, rows(v, b, h, start, at, across, L, V), HOW)
    put_rows(o, b, h, start, at, across, L, V, found)


@triton.jit
def value_gradients(
    q, k, d_o, g, d_kept, scores, d_v, L, H, R, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr, WRITTEN: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dV = P^T dO + (exp(c_C - c) K) dS', the second term, what the state after the chunk asks for, where WRITTEN."""
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    tile, n, bh = tl.program_id(0) % tiles_v, tl.program_id(0) // tiles_v % NC, tl.program_id(0) // tiles_v // NC
    b, h, start = bh // H, bh % H, n * C
    at, across = tl.arange(0, C), tile * BV + tl.arange(0, BV)
    found = tl.zeros((C, BV), tl.float32)
    P = tl.zeros((C, C), tl.float32)  # transposed
    for first in range(0, K, BK):
        down = first + tl.arange(0, BK)
        if GATE < 2:
            keys = rows(k, b, h // R, start, at, down, L, K)
            P += product(keys, rows_across(q, b, h // R, start, at, down, L, K), HOW)
        if WRITTEN:
            keys = rows(k, b, h // R, start, at, down, L, K)
            if GATE == 2:
                later = rows(g, b, h, start, at + 1, down, tl.minimum(L, start + C), K)
                keys *= tl.exp(tl.cumsum(later, 0, reverse=True))
            found += product(keys, block(d_kept, (b * NC + n) * H + h, down, across, K, V), HOW)
    if GATE == 1:
        if WRITTEN:
            found *= left(g, b, h, start, at, L, C)[:, None]
        P *= tl.trans(between(g, b, h, start, at, L))
    if GATE == 2:
        P = rows_across(scores, b, h, start, at, at, L, C)
    P = tl.where(at[:, None] <= at[None, :], P, 0.0)
    found += product(P, rows(d_o, b, h, start, at, across, L, V), HOW)
    put_rows(d_v, b, h, start, at, across, L, V, found)
