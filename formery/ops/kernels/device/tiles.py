"""What the kernels have in common: tiles of tokens and states in float32, products, and decays that never overflow.

A tile has zeros where it reaches beyond the tokens or the channels: such tokens neither decay, nor write, nor read.
Sums of log decays are sums of numbers of one sign wherever that is possible: no digits cancel, however strong they are.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(x, b, h, start):
    """Where token `start` of head h and batch item b begins in the rows x."""
    return x[0] + tl.cast(b, tl.int64) * x[1] + tl.cast(start, tl.int64) * x[2] + tl.cast(h, tl.int64) * x[3]


@triton.jit
def rows(x, b, h, start, at, columns, length, width):
    """Tokens start + at and channels `columns` of x: (tokens, channels)."""
    seen = (start + at < length)[:, None] & (columns < width)[None, :]
    pointers = place(x, b, h, start) + at[:, None] * x[2] + columns[None, :]
    return tl.load(pointers, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def rows_across(x, b, h, start, at, columns, length, width):
    """The same as (channels, tokens)."""
    seen = (start + at < length)[None, :] & (columns < width)[:, None]
    pointers = place(x, b, h, start) + at[None, :] * x[2] + columns[:, None]
    return tl.load(pointers, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def row(x, b, h, t, columns, seen, width):
    """Token t of x: (channels,); zeros unless `seen`."""
    return tl.load(place(x, b, h, t) + columns, mask=seen & (columns < width), other=0.0).to(tl.float32)


@triton.jit
def put_rows(x, b, h, start, at, columns, length, width, value):
    """Write a tile (tokens, channels)."""
    seen = (start + at < length)[:, None] & (columns < width)[None, :]
    tl.store(place(x, b, h, start) + at[:, None] * x[2] + columns[None, :], value, mask=seen)


@triton.jit
def numbers(x, b, h, start, at, seen):
    """One number a token and head, of tokens start + at: (tokens,); zeros unless `seen`."""
    return tl.load(place(x, b, h, start) + at * x[2], mask=seen, other=0.0).to(tl.float32)


@triton.jit
def column(x, b, h, start, at, index, seen):
    """Channel `index` of tokens start + at of x: (tokens,); zeros unless `seen`."""
    return tl.load(place(x, b, h, start) + at * x[2] + index, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def put_numbers(x, b, h, start, at, seen, value):
    """Write one number a token."""
    tl.store(place(x, b, h, start) + at * x[2], value, mask=seen)


@triton.jit
def block(x, index, down, across, height, width):
    """Rows `down` and columns `across` of matrix `index` of x (..., height, width)."""
    seen = (down < height)[:, None] & (across < width)[None, :]
    pointers = x + tl.cast(index, tl.int64) * height * width + down[:, None] * width + across[None, :]
    return tl.load(pointers, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def block_across(x, index, down, across, height, width):
    """The same, transposed: (across, down)."""
    seen = (down < height)[None, :] & (across < width)[:, None]
    pointers = x + tl.cast(index, tl.int64) * height * width + down[None, :] * width + across[:, None]
    return tl.load(pointers, mask=seen, other=0.0).to(tl.float32)


@triton.jit
def put_block(x, index, down, across, height, width, value):
    """Write rows `down` and columns `across` of matrix `index`."""
    seen = (down < height)[:, None] & (across < width)[None, :]
    pointers = x + tl.cast(index, tl.int64) * height * width + down[:, None] * width + across[None, :]
    tl.store(pointers, value, mask=seen)


@triton.jit
def product(a, b, HOW: tl.constexpr):
    """a b, summed in float32; HOW says what the factors are rounded to (see `launch.precision`)."""
    if HOW == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    else:
        return tl.dot(a, b, input_precision=HOW)


@triton.jit
def grown(g, b, h, start, at, length):
    """exp(g_1 + ... + g_t) of tokens t of a chunk: what is left at t of the state before it."""
    return tl.exp(tl.cumsum(numbers(g, b, h, start, at, start + at < length), 0))


@triton.jit
def left(g, b, h, start, at, length, C: tl.constexpr):
    """exp(g_(t+1) + ... + g_C) of tokens t of a chunk: what is left of them at its end."""
    later = numbers(g, b, h, start, at + 1, (at + 1 < C) & (start + at + 1 < length))
    return tl.exp(tl.cumsum(later, 0, reverse=True))


@triton.jit
def whole(g, b, h, start, at, length):
    """exp(g_1 + ... + g_C): what a chunk leaves of the state before it."""
    return tl.exp(tl.sum(numbers(g, b, h, start, at, start + at < length), 0))


@triton.jit
def between(g, b, h, start, at, length):
    """exp(g_(j+1) + ... + g_i) of tokens j <= i of a chunk, else 0: (tokens, tokens).

    The running sum is kept as a pair of float32 numbers, high and low digits: its differences are then as exact as
    float32 can hold them, where a sum in float32 would lose digits to the strong decays before.
    """
    c = tl.cumsum(numbers(g, b, h, start, at, start + at < length).to(tl.float64), 0)
    high = c.to(tl.float32)
    low = (c - high.to(tl.float64)).to(tl.float32)
    fall = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    return tl.where(at[:, None] >= at[None, :], tl.exp(tl.minimum(fall, 0.0)), 0.0)


@triton.jit
def from_later(x):
    """The sum of each row of x (tokens, ...) with the rows after it: what a running sum's gradient becomes."""
    return tl.cumsum(x, 0, reverse=True)
