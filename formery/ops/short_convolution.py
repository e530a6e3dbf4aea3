"""A causal depthwise convolution over a few tokens, with the tail that carries it from chunk to chunk.

x (B, L, C); weight (C, k), newest token last; bias (C,); tail (B, k - 1, C), the inputs before x, None for zeros.
y_t = sum_j weight[:, j] x_{t - k + 1 + j} + bias. Every form returns y (B, L, C) and the new tail, changing no input.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from . import backend
from .forms import transformed


def reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, tail: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token after another: the definition."""
    window = _history(x, weight, tail)
    outputs = [x[:, :0]]
    for t in range(x.shape[1]):
        window = torch.cat([window, x[:, t : t + 1]], dim=1)
        y = torch.einsum("bkc,ck->bc", window, weight)
        outputs.append((y if bias is None else y + bias)[:, None])
        window = window[:, 1:]
    return torch.cat(outputs, dim=1), window


def short_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, tail: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The fastest form, any length; what follows (SiLU, usually) is the caller's.

    A convolution over an image of height 1 takes channels last as they are: at (1, 1024, 11520) and k 4, one thread, it
    takes 57 ms where the one-dimensional convolution, which copies them first, takes 256 and k shifted products 139.
    """
    length = x.shape[1]
    if not torch.compiler.is_compiling() and length > 1 and not transformed():
        fits = weight.shape[1] <= backend.TAPS and (tail is None or tail.dtype == x.dtype)
        if backend.takes_kernels(x, weight, bias, tail, fits=fits):
            from .kernels.short_convolution import fused

            return fused(x, weight, bias, tail)
    extended = torch.cat([_history(x, weight, tail), x], dim=1)
    if not torch.compiler.is_exporting() and length == 1:
        y = (extended * weight.mT).sum(1, keepdim=True)
        return y if bias is None else y + bias, extended[:, 1:]  # a view: one token more is kept alive, not a chunk
    if not torch.compiler.is_exporting() and length == 0:
        y = x
    else:
        image = extended.mT.unsqueeze(2)  # (B, C, 1, L + k - 1)
        y = F.conv2d(image, weight[:, None, None], bias, groups=x.shape[2]).squeeze(2).mT
    return y, extended[:, length:].clone()  # a view would keep all of `extended` alive


def _history(x: Tensor, weight: Tensor, tail: Tensor | None) -> Tensor:
    if tail is None:
        return x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2])
    return tail.to(x.dtype)


def macs(batch: int, length: int, channels: int, width: int) -> int:
    """Multiply-accumulates: `width` for each output."""
    return batch * length * channels * width
