"""A causal depthwise convolution over W tokens, its bias and SiLU in one pass.

Tokens are counted from the tail on: e_0 ... e_(W-2) are the inputs before x, then x; y_t = sum_j w_j e_(t+j) + bias.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tiles import put_rows, rows


@triton.jit
def inputs_at(x, tail, b, first, at, channel, L, D: tl.constexpr, W: tl.constexpr):
    """e at first + at: of x, or of the tail before it; zeros elsewhere."""
    t = first + at - (W - 1)
    of_x = tl.load(
        x[0] + tl.cast(b, tl.int64) * x[1] + tl.cast(t, tl.int64)[:, None] * x[2] + channel[None, :],
        mask=((t >= 0) & (t < L))[:, None] & (channel < D)[None, :],
        other=0.0,
    )
    return of_x.to(tl.float32) + rows(tail, b, 0, first, at, channel, W - 1, D)


@triton.jit
def before_activation(x, weight, bias, tail, b, start, at, channel, L, D: tl.constexpr, W: tl.constexpr):
    """sum_j w_j e_(t+j) + bias of tokens start + at."""
    y = tl.zeros((at.shape[0], channel.shape[0]), tl.float32)
    if bias is not None:
        y += tl.load(bias + channel, mask=channel < D, other=0.0).to(tl.float32)[None, :]
    for j in tl.static_range(W):
        tap = tl.load(weight + channel * W + j, mask=channel < D, other=0.0).to(tl.float32)
        y += tap[None, :] * inputs_at(x, tail, b, start + j, at, channel, L, D, W)
    return y


@triton.jit
def convolve(
    x, weight, bias, tail, y, L, N,
    D: tl.constexpr, W: tl.constexpr, SILU: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """y of one tile of T tokens and BD channels, of N tiles of tokens."""
    tiles: tl.constexpr = (D + BD - 1) // BD
    n, b = tl.program_id(0) // tiles % N, tl.program_id(0) // tiles // N
    at, channel = tl.arange(0, T), tl.program_id(0) % tiles * BD + tl.arange(0, BD)
    found = before_activation(x, weight, bias, tail, b, n * T, at, channel, L, D, W)
    if SILU:
        found *= tl.sigmoid(found)
    put_rows(y, b, 0, n * T, at, channel, L, D, found)


@triton.jit
def tap_gradients(
    x, weight, bias, tail, d_y, d_sum, d_weight, d_bias, L, N,
    D: tl.constexpr, W: tl.constexpr, SILU: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of what SiLU is taken of in `d_sum` (where there is SILU), and this tile's parts of the taps' and the bias's."""
    tiles: tl.constexpr = (D + BD - 1) // BD
    item = tl.program_id(0) // tiles
    n, b = item % N, item // N
    at, channel = tl.arange(0, T), tl.program_id(0) % tiles * BD + tl.arange(0, BD)
    asked = rows(d_y, b, 0, n * T, at, channel, L, D)
    if SILU:
        y = before_activation(x, weight, bias, tail, b, n * T, at, channel, L, D, W)
        gate = tl.sigmoid(y)
        asked *= gate * (1.0 + y * (1.0 - gate))
        put_rows(d_sum, b, 0, n * T, at, channel, L, D, asked)
    base = tl.cast(item, tl.int64) * D
    for j in tl.static_range(W):
        part = tl.sum(asked * inputs_at(x, tail, b, n * T + j, at, channel, L, D, W), 0)
        tl.store(d_weight + base * W + channel * W + j, part, mask=channel < D)
    if bias is not None:
        tl.store(d_bias + base + channel, tl.sum(asked, 0), mask=channel < D)


@triton.jit
def input_gradients(
    d_sum, weight, d_e, L, N, D: tl.constexpr, W: tl.constexpr, T: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of the tail and x, one after the other: de_p = sum_j w_j d_(p-j)."""
    tiles: tl.constexpr = (D + BD - 1) // BD
    n, b = tl.program_id(0) // tiles % N, tl.program_id(0) // tiles // N
    at, channel = tl.arange(0, T), tl.program_id(0) % tiles * BD + tl.arange(0, BD)
    found = tl.zeros((T, BD), tl.float32)
    for j in tl.static_range(W):
        t = n * T + at - j
        asked = tl.load(
            d_sum[0] + tl.cast(b, tl.int64) * d_sum[1] + tl.cast(t, tl.int64)[:, None] * d_sum[2] + channel[None, :],
            mask=((t >= 0) & (t < L))[:, None] & (channel < D)[None, :],
            other=0.0,
        )
        tap = tl.load(weight + channel * W + j, mask=channel < D, other=0.0).to(tl.float32)
        found += tap[None, :] * asked.to(tl.float32)
    put_rows(d_e, b, 0, n * T, at, channel, L + W - 1, D, found)
