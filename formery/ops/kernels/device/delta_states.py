"""States of the delta rule between chunks, forwards, and their gradients, backwards.

A program owns some columns of one head's state, all of its BK >= K rows, and walks over the chunks: U needs them all.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import block, grown, left, product, put_block, put_rows, rows, rows_across, whole


@triton.jit
def delta_states(
    k, w, u, g, first, kept, corrected, last, L, H, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """U = u - w S in `corrected`, S' = exp(c_C) S + (exp(c_C - c) K)^T U; the state before each chunk in `kept`."""
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    bh = tl.program_id(0) // tiles_v
    b, h = bh // H, bh % H
    at, down = tl.arange(0, C), tl.arange(0, BK)
    across = tl.program_id(0) % tiles_v * BV + tl.arange(0, BV)
    S = block(first, bh, down, across, K, V)
    for n in range(NC):
        start = n * C
        put_block(kept, (b * NC + n) * H + h, down, across, K, V, S)
        U = rows(u, b, h, start, at, across, L, V) - product(rows(w, b, h, start, at, down, L, K), S, HOW)
        put_rows(corrected, b, h, start, at, across, L, V, U)
        keys = rows_across(k, b, h, start, at, down, L, K)
        if GATE == 1:
            keys *= left(g, b, h, start, at, L, C)[None, :]
            S *= whole(g, b, h, start, at, L)
        S += product(keys, U, HOW)
    put_block(last, bh, down, across, K, V, S)


@triton.jit
def delta_state_gradients(
    q, k, w, g, d_o, within, d_last, kept, d_u, d_first, L, H, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dU = P^T dO + (exp(c_C - c) K) dS' and dS = exp(c_C) dS' + (exp(c) Q)^T dO - w^T dU.

    The first term of dU is given as `within`; the gradient of the state after each chunk goes to `kept`.
    """
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    bh = tl.program_id(0) // tiles_v
    b, h = bh // H, bh % H
    at, down = tl.arange(0, C), tl.arange(0, BK)
    across = tl.program_id(0) % tiles_v * BV + tl.arange(0, BV)
    dS = block(d_last, bh, down, across, K, V)
    for i in range(NC):
        n = NC - 1 - i
        start = n * C
        put_block(kept, (b * NC + n) * H + h, down, across, K, V, dS)
        written = product(rows(k, b, h, start, at, down, L, K), dS, HOW)
        queries = rows_across(q, b, h, start, at, down, L, K)
        if GATE == 1:
            written *= left(g, b, h, start, at, L, C)[:, None]
            queries *= grown(g, b, h, start, at, L)[None, :]
            dS *= whole(g, b, h, start, at, L)
        dU = rows(within, b, h, start, at, across, L, V) + written
        put_rows(d_u, b, h, start, at, across, L, V, dU)
        dS += product(queries, rows(d_o, b, h, start, at, across, L, V), HOW)
        dS -= product(rows_across(w, b, h, start, at, down, L, K), dU, HOW)
    put_block(d_first, bh, down, across, K, V, dS)
