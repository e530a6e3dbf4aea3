"""Gradients of the delta rule's inputs, all chunks at once, from those of its states and corrected values."""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import (
    between,
    block,
    block_across,
    from_later,
    grown,
    left,
    numbers,
    product,
    put_numbers,
    put_rows,
    rows,
    rows_across,
    whole,
)


@triton.jit
def delta_value_gradients(
    k, v, g, beta, inverse, kept, d_u, d_r, d_v, d_beta, d_beta_tile, L, H, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dR = T^T dU, of the right side R = beta E with the errors E = V - (exp(c) K) S; dV = beta dR; dbeta's dR . E.

    The last has a part a tile of channels, `d_beta_tile` apart.
    """
    tiles_v: tl.constexpr = (V + BV - 1) // BV
    tile, n, bh = tl.program_id(0) % tiles_v, tl.program_id(0) // tiles_v % NC, tl.program_id(0) // tiles_v // NC
    b, h, start = bh // H, bh % H, n * C
    at, across = tl.arange(0, C), tile * BV + tl.arange(0, BV)
    T = rows_across(inverse, b, h, start, at, at, L, C)
    dR = product(T, rows(d_u, b, h, start, at, across, L, V), HOW)
    predicted = tl.zeros((C, BV), tl.float32)
    for first in range(0, K, BK):
        down = first + tl.arange(0, BK)
        S = block(kept, (b * NC + n) * H + h, down, across, K, V)
        predicted += product(rows(k, b, h, start, at, down, L, K), S, HOW)
    if GATE == 1:
        predicted *= grown(g, b, h, start, at, L)[:, None]
    seen = start + at < L
    put_rows(d_r, b, h, start, at, across, L, V, dR)
    put_rows(d_v, b, h, start, at, across, L, V, dR * numbers(beta, b, h, start, at, seen)[:, None])
    moved = (d_beta[0] + tile * tl.cast(d_beta_tile, tl.int64), d_beta[1], d_beta[2], d_beta[3])
    error = rows(v, b, h, start, at, across, L, V) - predicted
    put_numbers(moved, b, h, start, at, seen, tl.sum(dR * error, 1))


@triton.jit
def delta_key_gradients(
    q, k, g, beta, corrected, d_o, d_r, kept, d_kept, d_q, d_k, d_g, d_beta, d_tile, L, H, NC,
    K: tl.constexpr, V: tl.constexpr, GATE: tl.constexpr,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dQ, dK of one tile of channels, and that tile's parts of the gradients of g and beta, `d_tile` apart.

    A key stands in the equations twice: as what reads the state, with exp(c_i), and as what is written to it, with
    exp(-c_j). So the gradient of c is q dq + k dk of the first role - k dk of the second.
    """
    tiles_k: tl.constexpr = (K + BK - 1) // BK
    tile, n, bh = tl.program_id(0) % tiles_k, tl.program_id(0) // tiles_k % NC, tl.program_id(0) // tiles_k // NC
    b, h, start = bh // H, bh % H, n * C
    at, down = tl.arange(0, C), tile * BK + tl.arange(0, BK)
    queries, keys = rows(q, b, h, start, at, down, L, K), rows(k, b, h, start, at, down, L, K)
    step = numbers(beta, b, h, start, at, start + at < L)
    of_q, reader = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    written, of_state = tl.zeros((C, BK), tl.float32), tl.zeros((BK,), tl.float32)
    dP, dA = tl.zeros((C, C), tl.float32), tl.zeros((C, C), tl.float32)
    for first in range(0, V, BV):
        across = first + tl.arange(0, BV)
        S = block_across(kept, (b * NC + n) * H + h, down, across, K, V)
        dS = block_across(d_kept, (b * NC + n) * H + h, down, across, K, V)
        out, dR = rows(d_o, b, h, start, at, across, L, V), rows(d_r, b, h, start, at, across, L, V)
        U = rows_across(corrected, b, h, start, at, across, L, V)
        of_q += product(out, S, HOW)
        reader -= product(dR * step[:, None], S, HOW)
        written += product(tl.trans(U), dS, HOW)
        dP += product(out, U, HOW)
        dA -= product(dR, U, HOW)
        if GATE == 1:
            of_state += tl.sum(S * dS, 0)
    dP = tl.where(at[:, None] >= at[None, :], dP, 0.0)
    dA = tl.where(at[:, None] > at[None, :], dA, 0.0)
    if GATE == 1:
        decay = between(g, b, h, start, at, L)
        dP *= decay
        dA *= decay
        since = grown(g, b, h, start, at, L)[:, None]
        of_q *= since
        reader *= since
        written *= left(g, b, h, start, at, L, C)[:, None]
        ends = tl.sum(written * keys) + whole(g, b, h, start, at, L) * tl.sum(of_state)
    asked = product(dA, keys, HOW)
    of_q += product(dP, keys, HOW)
    reader += step[:, None] * asked
    written += product(tl.trans(dP), queries, HOW) + product(tl.trans(dA * step[:, None]), keys, HOW)
    seen = start + at < L
    put_rows(d_q, b, h, start, at, down, L, K, of_q)
    put_rows(d_k, b, h, start, at, down, L, K, reader + written)
    offset = tile * tl.cast(d_tile, tl.int64)
    moved = (d_beta[0] + offset, d_beta[1], d_beta[2], d_beta[3])
    put_numbers(moved, b, h, start, at, seen, tl.sum(keys * asked, 1))
    if GATE == 1:
        d_c = tl.sum(queries * of_q + keys * (reader - written), 1)
        of_g = (d_g[0] + offset, d_g[1], d_g[2], d_g[3])
        put_numbers(of_g, b, h, start, at, seen, from_later(d_c) + ends)
