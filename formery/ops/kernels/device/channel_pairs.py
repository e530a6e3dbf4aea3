"""Pairs of a chunk's tokens where every key channel has its own decay: sum_k q_ik k_jk exp(g_(j+1)k + ... + g_ik).

The chunk is cut into blocks of BC tokens. Between blocks the exponent is split at the border: what falls from it to i
goes to q, what falls from j to it goes to k, both at most 0, and the sum is a product of matrices. Within a block the
fall is added up token by token. No exponent is ever positive, no digits cancel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import column, product, put_rows, row, rows, rows_across


@triton.jit
def scores(
    q, k, g, found, L, H, NC,
    K: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """The pairs (i, j) of one block of rows i: `found` (B, L, H, C); what is later than i is left as it is."""
    blocks: tl.constexpr = C // BC
    border = tl.program_id(0) % blocks * BC
    n, bh = tl.program_id(0) // blocks % NC, tl.program_id(0) // blocks // NC
    b, h, start = bh // H, bh % H, n * C
    at, own = tl.arange(0, C), tl.arange(0, BC)
    earlier = tl.zeros((BC, C), tl.float32)
    among = tl.zeros((BC, BC), tl.float32)
    for first in range(0, K, BK):
        down = first + tl.arange(0, BK)
        queries = rows(q, b, h, start + border, own, down, L, K)
        if border > 0:
            until = tl.minimum(L, start + border)
            fall = tl.cumsum(rows_across(g, b, h, start, at + 1, down, until, K), 1, reverse=True)
            keys = rows_across(k, b, h, start, at, down, until, K) * tl.exp(fall)
            since = tl.cumsum(rows(g, b, h, start + border, own, down, L, K), 0)
            earlier += product(queries * tl.exp(since), keys, HOW)
        since = tl.zeros((BC, BK), tl.float32)
        for i in range(BC):
            j = BC - 1 - i
            t = start + border + j
            decay = row(g, b, h, t + 1, down, (j + 1 < BC) & (t + 1 < L), K)
            since = tl.where((own > j)[:, None], since + decay[None, :], 0.0)
            key = row(k, b, h, t, down, t < L, K)
            column = tl.sum(queries * tl.exp(since) * key[None, :], 1)
            among = tl.where((own == j)[None, :], among + column[:, None], among)
    put_rows(found, b, h, start + border, own, at, L, border, earlier)
    put_rows(found, b, h, start + border, own, border + own, L, C, among)


@triton.jit
def score_gradients(
    v, d_o, found, L, H, NC, V: tl.constexpr, C: tl.constexpr, BV: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """dP = dO V^T of a chunk, all pairs: `found` (B, L, H, C)."""
    n, bh = tl.program_id(0) % NC, tl.program_id(0) // NC
    b, h, start = bh // H, bh % H, n * C
    at = tl.arange(0, C)
    dP = tl.zeros((C, C), tl.float32)
    for first in range(0, V, BV):
        across = first + tl.arange(0, BV)
        out = rows(d_o, b, h, start, at, across, L, V)
        dP += product(out, rows_across(v, b, h, start, at, across, L, V), HOW)
    put_rows(found, b, h, start, at, at, L, C, dP)


@triton.jit
def pair_gradients(
    q, k, g, d_scores, d_q, d_k, L, H, NC,
    K: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BK: tl.constexpr, HOW: tl.constexpr,
):  # fmt: skip
    """What the pairs give to dQ and dK of one block of tokens and one tile of channels."""
    tiles_k: tl.constexpr = (K + BK - 1) // BK
    blocks: tl.constexpr = C // BC
    border = tl.program_id(0) // tiles_k % blocks * BC
    n, bh = tl.program_id(0) // (tiles_k * blocks) % NC, tl.program_id(0) // (tiles_k * blocks) // NC
    b, h, start = bh // H, bh % H, n * C
    at, own = tl.arange(0, C), tl.arange(0, BC)
    down = tl.program_id(0) % tiles_k * BK + tl.arange(0, BK)
    begin = start + border
    end = begin + BC
    limit = tl.minimum(L, start + C)
    decays = rows(g, b, h, begin, own, down, L, K)
    of_q, of_k = tl.zeros((BC, BK), tl.float32), tl.zeros((BC, BK), tl.float32)
    if border > 0:
        until = tl.minimum(L, begin)
        fall = tl.cumsum(rows(g, b, h, start, at + 1, down, until, K), 0, reverse=True)
        before = rows(k, b, h, start, at, down, until, K) * tl.exp(fall)
        of_q = product(rows(d_scores, b, h, begin, own, at, L, border), before, HOW) * tl.exp(tl.cumsum(decays, 0))
    if end < limit:
        since = tl.cumsum(rows(g, b, h, end, at, down, limit, K), 0)
        after = rows(q, b, h, end, at, down, limit, K) * tl.exp(since)
        fall = tl.cumsum(rows(g, b, h, begin, own + 1, down, tl.minimum(L, end), K), 0, reverse=True)
        asked = rows_across(d_scores, b, h, end, at, border + own, limit, C)
        of_k = product(asked, after, HOW) * tl.exp(fall)
    since = tl.zeros((BC, BK), tl.float32)
    for i in range(BC):
        j = BC - 1 - i
        t = begin + j
        decay = row(g, b, h, t + 1, down, (j + 1 < BC) & (t + 1 < L), K)
        since = tl.where((own > j)[:, None], since + decay[None, :], 0.0)
        key = row(k, b, h, t, down, t < L, K)
        asked = column(d_scores, b, h, begin, own, border + j, (own >= j) & (begin + own < L))
        of_q += asked[:, None] * tl.exp(since) * key[None, :]
    fall = tl.zeros((BC, BK), tl.float32)
    for i in range(BC):
        t = begin + i
        fall = tl.where((own < i)[:, None], fall + row(g, b, h, t, down, t < L, K)[None, :], 0.0)
        query = row(q, b, h, t, down, t < L, K)
        asked = row(d_scores, b, h, t, border + own, (own <= i) & (t < L), C)
        of_k += asked[:, None] * tl.exp(fall) * query[None, :]
    put_rows(d_q, b, h, begin, own, down, L, K, of_q)
    put_rows(d_k, b, h, begin, own, down, L, K, of_k)
