"""States of linear attention between chunks, forwards, and their gradients, backwards.

A program owns a tile of one head's state and walks over the chunks. GATE says what has a decay: 0 nothing, 1 each token
of a head, 2 each key channel. R heads share their keys and queries.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import block, grown, left, product, put_block, rows, rows_across, whole


@triton.jit
def states(
    k, v, g, first, kept, last, L, H, R, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr, KEEP: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """S' = exp(c_C) S + (exp(c_C - c) K)^T V; the state before each chunk goes to `kept` (B, NC, H, K, V)."""
    pid = tl.program_id(0)
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    tiles_k: tl.constexpr = (K + BK - 1) // BK
    bh = pid // (tiles_k * tiles_v)
    b, h = bh // H, bh % H
    at, down = tl.arange(0, C), pid // tiles_v % tiles_k * BK + tl.arange(0, BK)
    across = pid % tiles_v * BV + tl.arange(0, BV)
    S = block(first, bh, down, across, K, V)
    for n in range(NC):
        start = n * C
        if KEEP:
            put_block(kept, (b * NC + n) * H + h, down, across, K, V, S)
        keys = rows_across(k, b, h // R, start, at, down, L, K)
        if GATE == 1:
            keys *= left(g, b, h, start, at, L, C)[None, :]
            S *= whole(g, b, h, start, at, L)
        if GATE == 2:
            later = rows_across(g, b, h, start, at + 1, down, tl.minimum(L, start + C), K)
            keys *= tl.exp(tl.cumsum(later, 1, reverse=True))
            S *= tl.exp(tl.sum(rows_across(g, b, h, start, at, down, L, K), 1))[:, None]
        S += product(keys, rows(v, b, h, start, at, across, L, V), HOW)
    put_block(last, bh, down, across, K, V, S)


@triton.jit
def state_gradients(
    q, d_o, g, d_last, kept, d_first, L, H, R, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dS = exp(c_C) dS' + (exp(c) Q)^T dO; the gradient of the state after each chunk goes to `kept`."""
    pid = tl.program_id(0)
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    tiles_k: tl.constexpr = (K + BK - 1) // BK
    bh = pid // (tiles_k * tiles_v)
    b, h = bh // H, bh % H
    at, down = tl.arange(0, C), pid // tiles_v % tiles_k * BK + tl.arange(0, BK)
    across = pid % tiles_v * BV + tl.arange(0, BV)
    dS = block(d_last, bh, down, across, K, V)
    for i in range(NC):
        n = NC - 1 - i
        start = n * C
        put_block(kept, (b * NC + n) * H + h, down, across, K, V, dS)
        queries = rows_across(q, b, h // R, start, at, down, L, K)
        if GATE == 1:
            queries *= grown(g, b, h, start, at, L)[None, :]
            dS *= whole(g, b, h, start, at, L)
        if GATE == 2:
            decays = rows_across(g, b, h, start, at, down, L, K)
            queries *= tl.exp(tl.cumsum(decays, 1))
            dS *= tl.exp(tl.sum(decays, 1))[:, None]
        dS += product(queries, rows(d_o, b, h, start, at, across, L, V), HOW)
    put_block(d_first, bh, down, across, K, V, dS)
