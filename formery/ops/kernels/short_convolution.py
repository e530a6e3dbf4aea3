"""A short causal depthwise convolution by Triton kernels, with its bias and SiLU, forwards and backwards.

x (B, L, C); weight (C, k), newest token last, k <= 16; bias (C,); tail (B, k - 1, C), the inputs before x, None for
zeros: as in `formery.ops.short_convolution`, whose form on CUDA devices this is made to be.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from .device.short_taps import convolve, input_gradients, tap_gradients
from .launch import Rows, launch, rows

TOKENS, CHANNELS = 16, 128
"""Of a tile."""


def flat(x: Tensor) -> Rows:
    """x (B, L, C) for a kernel."""
    return rows(x[:, :, None])


def sizes(x: Tensor, weight: Tensor, tokens: int) -> tuple[int, dict[str, Any]]:
    """Tiles of `tokens` tokens, and the sizes as kernels name them."""
    channels, width = weight.shape
    tile = min(CHANNELS, triton.next_power_of_2(channels))
    return -(-x.shape[1] // tokens), {"D": channels, "W": width, "T": tokens, "BD": tile}


def grid(batch: int, tiles: int, size: dict[str, Any]) -> tuple[int]:
    """A program a tile."""
    return (batch * tiles * -(-size["D"] // size["BD"]),)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, silu: bool, tokens: int = TOKENS) -> Tensor:
    """y (B, L, C) in x's dtype; the sum is float32."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    tiles, size = sizes(x, weight, tokens)
    launch(
        convolve, grid(x.shape[0], tiles, size), flat(x), weight.contiguous(), bias, flat(tail), flat(y), x.shape[1],
        tiles, SILU=silu, num_warps=4, **size,
    )  # fmt: skip
    return y


def backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, silu: bool, d_y: Tensor, tokens: int = TOKENS
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of x, weight, bias and tail; what SiLU is taken of is computed again."""
    (B, L, C), W, weight = x.shape, weight.shape[1], weight.contiguous()
    tiles, size = sizes(x, weight, tokens)
    of_weight = weight.new_empty(B * tiles, C, W, dtype=torch.float32)
    of_bias = None if bias is None else of_weight.new_empty(B * tiles, C)
    of_sum = of_weight.new_empty(B, L, C) if silu else d_y
    launch(
        tap_gradients, grid(B, tiles, size), flat(x), weight, bias, flat(tail), flat(d_y), flat(of_sum), of_weight,
        of_bias, L, tiles, SILU=silu, num_warps=4, **size,
    )  # fmt: skip
    both = x.new_empty(B, W - 1 + L, C)
    tiles, size = sizes(both, weight, tokens)
    launch(
        input_gradients, grid(B, tiles, size), flat(of_sum), weight, flat(both), L, tiles, num_warps=4, **size,
    )  # fmt: skip
    d_bias = None if bias is None or of_bias is None else of_bias.sum(0).to(bias.dtype)
    return both[:, W - 1 :], of_weight.sum(0).to(weight.dtype), d_bias, both[:, : W - 1].to(tail.dtype)


class Fused(torch.autograd.Function):
    """`forward` with `backward`; a gradient of the gradient goes through plain operations."""

    @staticmethod
    def forward(
        ctx: Any, silu: bool, tokens: int, x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, tail)
        ctx.silu, ctx.tokens = silu, tokens
        return forward(x, weight, bias, tail, silu, tokens)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        given = x, weight, bias, tail = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return None, None, *backward(x, weight, bias, tail, ctx.silu, d_y, ctx.tokens)
        asked = ctx.needs_input_grad[2:]
        wanted = [x for x, needed in zip(given, asked, strict=True) if needed]
        found = iter(torch.autograd.grad(plain(x, weight, bias, tail, ctx.silu), wanted, d_y, create_graph=True))
        return None, None, *(next(found) if needed else None for needed in asked)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, silu: bool) -> Tensor:
    """The same of plain operations."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    windows = torch.cat([tail.to(dtype), x.to(dtype)], dim=1).unfold(1, weight.shape[1], 1)
    y = (windows * weight.to(dtype)).sum(-1)
    y = y if bias is None else y + bias.to(dtype)
    return (torch.nn.functional.silu(y) if silu else y).to(x.dtype)


def fused(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, tail: Tensor | None = None, *, silu: bool = False,
    tokens: int = TOKENS,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (B, L, C), SiLU taken of it where `silu`, and the new tail; L is at least 1."""
    length, past = x.shape[1], weight.shape[1] - 1
    tail = x.new_zeros(x.shape[0], past, x.shape[2]) if tail is None else tail.to(x.dtype)
    new = torch.cat([tail, x[:, max(0, length - past) :]], dim=1)
    new = new[:, new.shape[1] - past :]
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, weight, bias, tail)):
        y: Tensor = Fused.apply(silu, tokens, x, weight, bias, tail)  # type: ignore[no-untyped-call]
        return y, new
    return forward(x, weight, bias, tail, silu, tokens), new
