"""Depthwise convolutions over maps (B, H, W, C), stride 1 and as much padding as keeps the size.

oneDNN's convolution of channels-last maps is fast for kernels up to 9 x 9 and slow for 13 x 13, for which its
convolution of planes (B, C, H, W) is up to three times as fast; laying the map out as planes and back costs less than
that wins, as long as it happens in the cache, some items at a time. Milliseconds with one thread of an AMD EPYC
(torch 2.13), channels last against planes with both ways:

    13 x 13, 1 x 28 x 28 x 80     0.74  0.37        11 x 11, 1 x 28 x 28 x 80     0.30  0.31
    13 x 13, 8 x 28 x 28 x 80     5.95  3.63        11 x 11, 8 x  7 x  7 x 768    0.84  1.14
    13 x 13, 1 x 14 x 14 x 384    0.67  0.39         9 x 9,  1 x 14 x 14 x 384    0.18  0.30
    13 x 13, 8 x  7 x  7 x 768    1.60  1.32         7 x 7,  1 x 56 x 56 x 96     0.36  0.88

A Fourier transform takes 1.3 to 20 times as long as the channels-last convolution, torch's own 5 to 20 times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .forms import plain

LARGE = 13
"""Kernel size from which on planes are faster."""
PIECE = 1 << 19
"""Bytes of a map that are convolved at a time as planes: beyond some of it, memory is asked from the system anew."""


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    """torch's convolution of a channels-last view; x (B, H, W, C), weight (C, 1, k, k) with k odd, bias (C,)."""
    padding = dilation * (weight.shape[-1] // 2)
    y = F.conv2d(x.movedim(-1, 1), weight, bias, padding=padding, dilation=dilation, groups=weight.shape[0])
    return y.movedim(1, -1)


def as_planes(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    """The same on a copy of the map in planes, some items at a time."""
    padding, channels = dilation * (weight.shape[-1] // 2), weight.shape[0]
    items = max(1, PIECE // max(1, x[0].numel() * x.element_size()))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    for begin in range(0, x.shape[0], items):
        planes = x[begin : begin + items].movedim(-1, 1).contiguous()
        convolved = F.conv2d(planes, weight, bias, padding=padding, dilation=dilation, groups=channels)
        y[begin : begin + items] = convolved.movedim(1, -1)
    return y


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """The faster of both for inference on CPUs; the first one elsewhere."""
    if x.numel() == 0 or not plain(x):
        return reference(x, weight, bias, dilation)
    return (as_planes if weight.shape[-1] >= LARGE else reference)(x, weight, bias, dilation)
