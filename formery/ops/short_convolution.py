"""A causal depthwise convolution over a few tokens, with the tail that carries it from chunk to chunk.

x (B, L, C); weight (C, k), newest token last; bias (C,); tail (B, k - 1, C), the inputs before x, zeros at the start.
y_t = sum_j weight[:, j] x_{t - k + 1 + j} + bias. Every form returns y (B, L, C) and the new tail, changing no input.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, tail: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token after another: the definition."""
    width = weight.shape[-1]
    window = x.new_zeros(x.shape[0], width - 1, x.shape[2]) if tail is None else tail.to(x.dtype)
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
    """The fastest form."""
    width, length = weight.shape[-1], x.shape[1]
    history = x.new_zeros(x.shape[0], width - 1, x.shape[2]) if tail is None else tail.to(x.dtype)
    extended = torch.cat([history, x], dim=1)
    y = F.conv1d(extended.mT, weight[:, None], bias, groups=x.shape[2]).mT
    return y, extended[:, length:]
