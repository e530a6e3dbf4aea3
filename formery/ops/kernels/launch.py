"""How kernels are launched: tensors as they take them, tile sizes, precision of products."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from .device.tiles import product

Rows = tuple[Tensor, int, int, int]
"""A pointer, and the strides of batch, token and head of (B, L, H, ...), whose last axis is contiguous."""

INTERPRETED = isinstance(product, InterpretedFunction)
"""Whether the kernels were imported under TRITON_INTERPRET=1 and so run on CPUs."""


def rows(x: Tensor) -> Rows:
    """x (B, L, H, D) or (B, L, H) for a kernel; copied only where channels are not neighbours."""
    if x.dim() == 4 and x.stride(3) != 1 and x.shape[3] > 1:
        x = x.contiguous()
    return x, x.stride(0), x.stride(1), x.stride(2)


def tile(width: int, most: int) -> int:
    """Channels a tile has: a power of 2 that covers `width`, at least 16 (what products take) and at most `most`."""
    return min(most, max(16, triton.next_power_of_2(width)))


def precision(*inputs: Tensor) -> str:
    """What the factors of products are rounded to, by the inputs' dtypes; sums are float32 always.

    bfloat16 inputs: bfloat16. float16 inputs: tf32, which has float16's digits and float32's range. float32 inputs:
    three tf32 products for each one, which keep float32's digits, unless
    `torch.backends.cuda.matmul.fp32_precision` allows tf32 alone. The interpreter and AMD's devices: float32 itself.
    """
    if INTERPRETED or torch.version.hip is not None:
        return "ieee"
    dtypes = {x.dtype for x in inputs}
    if dtypes == {torch.bfloat16}:
        return "bf16"
    if torch.float32 not in dtypes:
        return "tf32"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def stored(how: str) -> torch.dtype:
    """What a factor of products is kept in between kernels without a loss."""
    return torch.bfloat16 if how == "bf16" else torch.float32


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Run `kernel` on the device of its first tensor."""
    device = next(
        x for arg in args for x in (arg if isinstance(arg, tuple) else (arg,)) if isinstance(x, Tensor)
    ).device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*args, **options)
