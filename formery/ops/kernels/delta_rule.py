"""The delta rule with and without decay by Triton kernels.

Shapes: q, k (B, L, H, K) with K <= 256, since a program holds whole columns of the state; v (B, L, H, V) with any V;
g (B, L, H) or None; beta (B, L, H); states (B, H, K, V).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import linear_attention as linear
from .device.delta_chunks import solve
from .device.delta_gradients import delta_key_gradients, delta_value_gradients
from .device.delta_states import delta_state_gradients, delta_states
from .launch import INTERPRETED, Rows, launch, precision, rows, tile
from .linear_attention import Call, call_of, parts


class Chunks(NamedTuple):
    """What chunks are made of besides their inputs, in the dtype that products take."""

    inverse: Tensor  # (B, L, H, C), T
    w: Tensor  # (B, L, H, K)
    corrected: Tensor  # (B, L, H, V), U
    kept: Tensor  # (B, NC, H, K, V), the states before
    last: Tensor  # (B, H, K, V)


NARROW = 128
"""Channels of a key up to which chunks are as long as registers allow; wider ones halve them."""


def chunk_length(how: str, key: int) -> int:
    """Tokens a chunk, so that registers hold a chunk's keys beside the columns of the state."""
    return (64 if how == "bf16" else 32) >> (key > NARROW)


def columns(c: Call) -> dict[str, Any]:
    """Sizes for programs that hold whole columns of a state, and their warps."""
    few = c.how != "bf16" and c.key <= NARROW
    return {**c.tiles(), "BK": tile(c.key, 256), "BV": tile(c.value, 16 if few else 32), "num_warps": 4 if few else 8}


def ahead(c: Call) -> int:
    """Stages of the walk over chunks: 2 fetch the next chunk's tiles ahead, where there is room for them."""
    return 2 if c.how == "bf16" and c.key <= NARROW else 1


def for_keys(c: Call) -> dict[str, Any]:
    """Sizes for the gradients of keys, which take the most registers of all, and their warps."""
    if c.how != "bf16":
        return {**c.tiles(), "BK": 16, "BV": 16, "num_warps": 4}
    if c.chunk < 64:
        return {**c.tiles(), "BK": tile(c.key, 32), "num_warps": 4}
    return {**c.tiles(), "num_warps": 8}


def call_for(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, chunk: int | None) -> Call:
    """The call for these inputs; `chunk` None is as long as fits."""
    return call_of(q, k, v, g, chunk_length(precision(q, k, v), q.shape[3]) if chunk is None else chunk)


def run_chunks(c: Call, beta: Rows, state: Tensor) -> Chunks:
    """Corrected values and states."""
    inverse, kept = c.pairs(), c.kept()
    B, L, H = c.batch, c.length, c.heads
    w = inverse.new_empty(B, L, H, c.key)
    u, corrected = (inverse.new_empty(B, L, H, c.value) for _ in range(2))
    launch(
        solve, (c.each(1),), c.k, c.v, c.g, beta, rows(inverse), rows(w), rows(u), L, H, c.chunks,
        GATE=c.gate, LEVELS=c.chunk.bit_length() - 1,
        SOLVE="ieee" if INTERPRETED or torch.version.hip is not None else "tf32x3",
        num_warps=4, num_stages=1, **c.tiles(),
    )  # fmt: skip
    last, sizes = state.new_empty(state.shape, dtype=torch.float32), columns(c)
    launch(
        delta_states, (B * H * parts(c.value, sizes["BV"]),), c.k, rows(w), rows(u), c.g, state, kept,
        rows(corrected), last, L, H, c.chunks, GATE=c.gate, num_stages=ahead(c), **sizes,
    )  # fmt: skip
    return Chunks(inverse, w, corrected, kept, last)


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """o (B, L, H, V) in v's dtype and the last state in float32."""
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    if out.numel() == 0 or state.numel() == 0:
        return out.zero_(), state.to(torch.float32, copy=True)
    c = call_for(q, k, v, g, chunk)
    made = run_chunks(c, rows(beta), state.contiguous())
    linear.run_outputs(c._replace(v=rows(made.corrected)), made.kept, None, out)
    return out, made.last


def backward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, beta: Tensor, state: Tensor, d_o: Tensor, d_last: Tensor,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, g, beta and the state, in their dtypes; what chunks are made of is computed again."""
    if v.numel() == 0 or state.numel() == 0:
        zeros = [None if x is None else torch.zeros_like(x) for x in (q, k, v, g, beta)]
        return *zeros, d_last.to(state.dtype, copy=True)  # type: ignore[return-value]
    c, steps, out = call_for(q, k, v, g, chunk), rows(beta), rows(d_o)
    made = run_chunks(c, steps, state.contiguous())
    corrected = rows(made.corrected)
    within, d_u, d_r = (torch.empty_like(made.corrected) for _ in range(3))
    linear.run_value_gradients(c, out, None, None, within)
    d_kept, d_last = c.kept(), d_last.float().contiguous()
    d_first, sizes = torch.empty_like(d_last), columns(c)
    launch(
        delta_state_gradients, (c.batch * c.heads * parts(c.value, sizes["BV"]),), c.q, c.k, rows(made.w), c.g, out,
        rows(within), d_last, d_kept, rows(d_u), d_first, c.length, c.heads, c.chunks,
        GATE=c.gate, num_stages=1, **sizes,
    )  # fmt: skip
    sizes, of_keys = c.tiles(), for_keys(c)
    tiles_k, tiles_v = parts(c.key, of_keys["BK"]), parts(c.value, sizes["BV"])
    d_q, d_k, d_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    d_beta = beta.new_empty(tiles_v + tiles_k, *beta.shape, dtype=torch.float32)
    d_g = None if g is None else g.new_empty(tiles_k, *g.shape, dtype=torch.float32)
    launch(
        delta_value_gradients, (c.each(tiles_v),), c.k, c.v, c.g, steps, rows(made.inverse),
        made.kept, rows(d_u), rows(d_r), rows(d_v), rows(d_beta[0]), d_beta.stride(0), c.length, c.heads, c.chunks,
        GATE=c.gate, num_warps=4, num_stages=2, **sizes,
    )  # fmt: skip
    launch(
        delta_key_gradients, (c.each(tiles_k),), c.q, c.k, c.g, steps, corrected, out, rows(d_r),
        made.kept, d_kept, rows(d_q), rows(d_k), None if d_g is None else rows(d_g[0]), rows(d_beta[tiles_v]),
        d_beta.stride(0), c.length, c.heads, c.chunks, GATE=c.gate, num_stages=1, **of_keys,
    )  # fmt: skip
    of_g = None if g is None or d_g is None else d_g.sum(0).to(g.dtype)
    return d_q, d_k, d_v, of_g, d_beta.sum(0).to(beta.dtype), d_first.to(state.dtype)
