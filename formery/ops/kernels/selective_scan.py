"""The selective scan by Triton kernels.

Shapes: u, dt (B, L, G, D); A (G, N, D); b, c (B, L, G, N) with N <= 64, since a program holds all numbers of a
channel's state; states (B, G, N, D). Everything is float32 inside: there are no products of matrices to round for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .device.selective_tokens import scan, scan_back, scan_gradients
from .launch import Rows, launch, rows

TOKENS = 16
"""Tokens that a tile has; the states between are kept for the gradient: N / 16 float32 numbers a token and channel."""
NUMBERS = 128
"""Numbers of the state in a tile: one for each thread."""


class Call(NamedTuple):
    """What all kernels of one call have in common."""

    u: Rows
    dt: Rows
    A: Tensor
    b: Rows
    c: Rows
    batch: int
    length: int
    groups: int
    number: int
    width: int
    tokens: int

    @property
    def chunks(self) -> int:
        """How many times `tokens`."""
        return -(-self.length // self.tokens)

    @property
    def sizes(self) -> dict[str, Any]:
        """As the kernels name them."""
        height = triton.next_power_of_2(self.number)
        width = min(max(1, NUMBERS // height), triton.next_power_of_2(self.width))
        return {"N": self.number, "D": self.width, "T": self.tokens, "BN": height, "BD": width}

    @property
    def grid(self) -> tuple[int]:
        """A program for each tile of channels."""
        return (self.batch * self.groups * -(-self.width // self.sizes["BD"]),)

    def kept(self) -> Tensor:
        """Room for a state every `tokens` tokens."""
        return self.A.new_empty(self.batch, self.chunks, *self.A.shape, dtype=torch.float32)


def call_of(u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, tokens: int) -> Call:
    """The call for these inputs."""
    (B, L, G, D), N = u.shape, b.shape[3]
    return Call(rows(u), rows(dt), A.contiguous(), rows(b), rows(c), B, L, G, N, D, tokens)


def run(call: Call, state: Tensor, kept: Tensor | None, y: Tensor) -> Tensor:
    """`y`, the states before every tile of tokens in `kept`, and the last one."""
    last = state.new_empty(state.shape, dtype=torch.float32)
    launch(
        scan, call.grid, call.u, call.dt, call.A, call.b, call.c, state, kept, rows(y), last, call.length, call.groups,
        call.chunks, KEEP=kept is not None, num_warps=4, **call.sizes,
    )  # fmt: skip
    return last


def forward(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, tokens: int = TOKENS
) -> tuple[Tensor, Tensor]:
    """y (B, L, G, D) in u's dtype and the last state in float32."""
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    if u.numel() == 0 or state.numel() == 0:
        return y.zero_(), state.to(torch.float32, copy=True)
    return y, run(call_of(u, dt, A, b, c, tokens), state.contiguous(), None, y)


def backward(
    u: Tensor, dt: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, d_y: Tensor, d_last: Tensor,
    tokens: int = TOKENS,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, dt, A, b, c and the state, in their dtypes; the states between are computed again."""
    inputs = u, dt, A, b, c
    if u.numel() == 0 or state.numel() == 0:
        d_u, d_dt, d_A, d_b, d_c = (torch.zeros_like(x) for x in inputs)
        return d_u, d_dt, d_A, d_b, d_c, d_last.to(state.dtype, copy=True)
    call, asked = call_of(*inputs, tokens), rows(d_y)
    kept, d_kept, of_A = call.kept(), call.kept(), call.kept()
    d_u, d_dt, d_b, d_c = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, dt, b, c))
    run(call, state.contiguous(), kept, torch.empty_like(d_u))
    d_last = d_last.float().contiguous()
    d_first = torch.empty_like(d_last)
    launch(
        scan_back, call.grid, call.dt, call.A, call.c, asked, d_last, d_kept, d_first, call.length, call.groups,
        call.chunks, num_warps=4, **call.sizes,
    )  # fmt: skip
    launch(
        scan_gradients, (call.batch * call.groups * call.chunks,), call.u, call.dt, call.A, call.b, call.c, asked, kept,
        d_kept, rows(d_u), rows(d_dt), of_A, rows(d_b), rows(d_c), call.length, call.groups, call.chunks,
        num_warps=4, **call.sizes,
    )  # fmt: skip
    return d_u, d_dt, of_A.sum((0, 1)).to(A.dtype), d_b, d_c, d_first.to(state.dtype)
