"""The selective scan, T tokens at a time: every number of the state has a decay of its own.

A program owns BD channels with all their BN >= N numbers and works on tiles (tokens, numbers, channels). Where the last
two fill the threads, a scan over the first stays within each thread: a plain loop over registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import block, put_block, put_rows, row, rows

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def joined(decay, x, later_decay, later_x):
    """Two stretches of x_t + decay_t (x_(t-1) + ...) as one."""
    return decay * later_decay, x * later_decay + later_x


@triton.jit
def decays(dt, rates):
    """exp(dt A) of steps (tokens, channels), with A times log2(e) as `rates`: (tokens, numbers, channels)."""
    return tl.exp2(dt[:, None, :] * rates[None, :, :])


@triton.jit
def states_of(decay, written, S, at):
    """The states after each of the tokens, from the state S before them."""
    x = written + tl.where((at == 0)[:, None, None], decay * S[None, :, :], 0.0)
    return tl.associative_scan((decay, x), 0, joined)[1]


@triton.jit
def gradients_of(next_decay, read, dS, at, T: tl.constexpr):
    """Of the states after each of the tokens: what they are read by, and what the next ones make of them."""
    x = read + tl.where((at == T - 1)[:, None, None], dS[None, :, :], 0.0)
    return tl.associative_scan((next_decay, x), 0, joined, reverse=True)[1]


@triton.jit
def scan(
    u, dt, A, b, c, first, kept, y, last, L, G, NC,
    N: tl.constexpr, D: tl.constexpr, KEEP: tl.constexpr, T: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y, and the last state; the state before every T tokens goes to `kept` (B, NC, G, N, D)."""
    tiles: tl.constexpr = (D + BD - 1) // BD
    item = tl.program_id(0) // tiles
    batch, group = item // G, item % G
    at, number, channel = tl.arange(0, T), tl.arange(0, BN), tl.program_id(0) % tiles * BD + tl.arange(0, BD)
    rates = block(A, group, number, channel, N, D) * LOG2_E
    S = block(first, item, number, channel, N, D)
    for n in range(NC):
        start = n * T
        if KEEP:
            put_block(kept, (batch * NC + n) * G + group, number, channel, N, D, S)
        step = rows(dt, batch, group, start, at, channel, L, D)
        x = rows(u, batch, group, start, at, channel, L, D) * step
        written = rows(b, batch, group, start, at, number, L, N)[:, :, None] * x[:, None, :]
        states = states_of(decays(step, rates), written, S, at)
        read = rows(c, batch, group, start, at, number, L, N)
        put_rows(y, batch, group, start, at, channel, L, D, tl.sum(states * read[:, :, None], 1))
        S = tl.sum(tl.where((at == T - 1)[:, None, None], states, 0.0), 0)
    put_block(last, item, number, channel, N, D, S)


@triton.jit
def scan_back(
    dt, A, c, d_y, d_last, kept, d_first, L, G, NC,
    N: tl.constexpr, D: tl.constexpr, T: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient of the state after every T tokens in `kept`, and of the first."""
    tiles: tl.constexpr = (D + BD - 1) // BD
    item = tl.program_id(0) // tiles
    batch, group = item // G, item % G
    at, number, channel = tl.arange(0, T), tl.arange(0, BN), tl.program_id(0) % tiles * BD + tl.arange(0, BD)
    rates = block(A, group, number, channel, N, D) * LOG2_E
    dS = block(d_last, item, number, channel, N, D)
    for i in range(NC):
        n = NC - 1 - i
        start = n * T
        put_block(kept, (batch * NC + n) * G + group, number, channel, N, D, dS)
        later = rows(dt, batch, group, start, at + 1, channel, tl.minimum(L, start + T), D)
        read = rows(c, batch, group, start, at, number, L, N)[:, :, None]
        asked = rows(d_y, batch, group, start, at, channel, L, D)[:, None, :]
        found = gradients_of(decays(later, rates), read * asked, dS, at, T)
        step = row(dt, batch, group, start, channel, start < L, D)
        dS = tl.exp2(step[None, :] * rates) * tl.sum(tl.where((at == 0)[:, None, None], found, 0.0), 0)
    put_block(d_first, item, number, channel, N, D, dS)


@triton.jit
def scan_gradients(
    u, dt, A, b, c, d_y, kept, d_kept, d_u, d_dt, d_A, d_b, d_c, L, G, NC,
    N: tl.constexpr, D: tl.constexpr, T: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of T tokens' inputs, from the states before and the gradients after; of A each T tokens' part.

    A program goes through all channels, since b and c are theirs in common.
    """
    n, item = tl.program_id(0) % NC, tl.program_id(0) // NC
    batch, group, start = item // G, item % G, n * T
    at, number = tl.arange(0, T), tl.arange(0, BN)
    index = (batch * NC + n) * G + group
    wrote = rows(b, batch, group, start, at, number, L, N)
    read = rows(c, batch, group, start, at, number, L, N)
    of_b, of_c = tl.zeros((T, BN), tl.float32), tl.zeros((T, BN), tl.float32)
    for first in range(0, D, BD):
        channel = first + tl.arange(0, BD)
        rates = block(A, group, number, channel, N, D) * LOG2_E
        step = rows(dt, batch, group, start, at, channel, L, D)
        value = rows(u, batch, group, start, at, channel, L, D)
        asked = rows(d_y, batch, group, start, at, channel, L, D)
        later = rows(dt, batch, group, start, at + 1, channel, tl.minimum(L, start + T), D)
        dS = block(d_kept, index, number, channel, N, D)
        of_state = gradients_of(decays(later, rates), read[:, :, None] * asked[:, None, :], dS, at, T)
        of_b += tl.sum(of_state * (step * value)[:, None, :], 2)
        of_written = tl.sum(of_state * wrote[:, :, None], 1)
        put_rows(d_u, batch, group, start, at, channel, L, D, of_written * step)
        decay = decays(step, rates)
        written = wrote[:, :, None] * (step * value)[:, None, :]
        states = states_of(decay, written, block(kept, index, number, channel, N, D), at)
        of_c += tl.sum(states * asked[:, None, :], 2)
        # What is left of the state before a token; below float32's digits the difference would be noise.
        carried = tl.where(decay > 2.0**-24, states - written, 0.0)
        of_exponent = of_state * carried
        of_step = of_written * value + tl.sum(of_exponent * (rates / LOG2_E)[None, :, :], 1)
        put_rows(d_dt, batch, group, start, at, channel, L, D, of_step)
        put_block(d_A, index, number, channel, N, D, tl.sum(of_exponent * step[:, None, :], 0))
    put_rows(d_b, batch, group, start, at, number, L, N, of_b)
    put_rows(d_c, batch, group, start, at, number, L, N, of_c)
