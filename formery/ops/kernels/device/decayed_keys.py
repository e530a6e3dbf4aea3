"""Gradients of linear attention's queries, keys and decays, all chunks at once. GATE and R as in `decayed_states`."""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    between,
    block_across,
    from_later,
    grown,
    left,
    product,
    put_numbers,
    put_rows,
    rows,
    rows_across,
    whole,
)


@triton.jit
def key_gradients(
    q, k, v, g, d_o, kept, d_kept, pairs_q, pairs_k, d_q, d_k, d_g, d_g_tile, L, H, R, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr, HEADS: tl.constexpr, DECAYS: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dQ, dK and the gradient of g of one tile of channels, from the states before chunks and the gradients after.

    A program sums over HEADS of the heads that share a query and a key, of which d_q and d_k have R / HEADS parts. With
    c the running sum of g, c_i stands with q_i in every product, -c_j with k_j, and the last c also with the state: the
    gradient of c is q dq - k dk. Where GATE is 2, `pairs_q` and `pairs_k` hold what pairs of a chunk's tokens give;
    else the gradient of g has a part a tile of channels, `d_g_tile` apart.
    """
    tiles_k: tl.constexpr = (K + BK - 1) // BK
    tile, n = tl.program_id(0) % tiles_k, tl.program_id(0) // tiles_k % NC
    parts, item = H // HEADS, tl.program_id(0) // tiles_k // NC
    part, b = item % parts, item // parts
    start, at = n * C, tl.arange(0, C)
    down = tile * BK + tl.arange(0, BK)
    queries = rows(q, b, part * HEADS // R, start, at, down, L, K)
    keys = rows(k, b, part * HEADS // R, start, at, down, L, K)
    all_q, all_k = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    for turn in range(HEADS):
        h = part * HEADS + turn
        of_q, of_k = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
        of_state = tl.zeros((BK,), tl.float32)
        dP = tl.zeros((C, C), tl.float32)
        for first in range(0, V, BV):
            across = first + tl.arange(0, BV)
            S = block_across(kept, (b * NC + n) * H + h, down, across, K, V)
            dS = block_across(d_kept, (b * NC + n) * H + h, down, across, K, V)
            out = rows(d_o, b, h, start, at, across, L, V)
            of_q += product(out, S, HOW)
            of_k += product(rows(v, b, h, start, at, across, L, V), dS, HOW)
            if GATE < 2:
                dP += product(out, rows_across(v, b, h, start, at, across, L, V), HOW)
            if DECAYS:
                of_state += tl.sum(S * dS, 0)
        if GATE == 0:
            dP = tl.where(at[:, None] >= at[None, :], dP, 0.0)
            of_q += product(dP, keys, HOW)
            of_k += product(tl.trans(dP), queries, HOW)
        if GATE == 1:
            dP *= between(g, b, h, start, at, L)
            of_q = of_q * grown(g, b, h, start, at, L)[:, None] + product(dP, keys, HOW)
            of_k *= left(g, b, h, start, at, L, C)[:, None]
            ends = tl.sum(of_k * keys) + whole(g, b, h, start, at, L) * tl.sum(of_state)
            of_k += product(tl.trans(dP), queries, HOW)
            if DECAYS:
                d_c = tl.sum(queries * of_q - keys * of_k, 1)
                moved = (d_g[0] + tile * tl.cast(d_g_tile, tl.int64), d_g[1], d_g[2], d_g[3])
                put_numbers(moved, b, h, start, at, start + at < L, from_later(d_c) + ends)
        if GATE == 2:
            decays = rows(g, b, h, start, at, down, L, K)
            later = rows(g, b, h, start, at + 1, down, tl.minimum(L, start + C), K)
            of_q = of_q * tl.exp(tl.cumsum(decays, 0)) + rows(pairs_q, b, h, start, at, down, L, K)
            of_k *= tl.exp(tl.cumsum(later, 0, reverse=True))
            of_ends = tl.sum(of_k * keys, 0) + tl.exp(tl.sum(decays, 0)) * of_state
            of_k += rows(pairs_k, b, h, start, at, down, L, K)
            if DECAYS:
                d_c = queries * of_q - keys * of_k
                put_rows(d_g, b, h, start, at, down, L, K, from_later(d_c) + of_ends[None, :])
        all_q += of_q
        all_k += of_k
    put_rows(d_q, b, part, start, at, down, L, K, all_q)
    put_rows(d_k, b, part, start, at, down, L, K, all_k)
