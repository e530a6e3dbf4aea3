"""Convolutions as parts hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CannotRun
from ..ops.depthwise import depthwise
from ..ops.forms import watched
from ..ops.map_convolution import map_convolution
from .part import untouched

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS: dict[int, type[Convolution]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""By the rank of the grid."""
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def convolution(rank: int, *args: Any, **kwargs: Any) -> Convolution:
    """torch's convolution over a grid of `rank` axes.

    Over maps and videos its kernel lies channels last in memory, as they do: it is not laid out anew at every call.
    Shapes, names and saved files are those of any other convolution.
    """
    conv = CONVOLUTIONS[rank](*args, **kwargs)
    if rank in LAYOUTS:
        conv.weight.data = conv.weight.data.contiguous(memory_format=LAYOUTS[rank])
    return conv


def channels_last_conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
    """`convolution` over maps."""
    conv = convolution(2, *args, **kwargs)
    assert isinstance(conv, nn.Conv2d)
    return conv


def depthwise_conv(dim: int, size: int, dilation: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """A convolution of each channel alone that keeps a map's size; `size` is odd."""
    return channels_last_conv(dim, dim, size, padding=dilation * (size // 2), dilation=dilation, groups=dim, bias=bias)


def check_reach(conv: Convolution, grid: Sequence[int]) -> None:
    """CannotRun where a grid, filled up as the convolution does, is smaller than its kernel."""
    if not isinstance(conv.padding, str):
        kernel = [gap * (size - 1) + 1 for size, gap in zip(conv.kernel_size, conv.dilation, strict=True)]
        check_kernel(grid, kernel, conv.padding)


def check_kernel(grid: Sequence[int], kernel: Sequence[int], padding: Sequence[int]) -> None:
    """CannotRun where a grid with `padding` on both ends of each axis is smaller than a kernel."""
    if not watched() and any(n + 2 * fill < size for n, size, fill in zip(grid, kernel, padding, strict=True)):
        given, needed = (" x ".join(map(str, sizes)) for sizes in (grid, kernel))
        raise CannotRun(
            f"a grid of {given} is smaller than a kernel of {needed}: the input is too small; give a larger one"
        )


def over_grid(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of tokens (B, *grid, C): a `depthwise_conv` of a map, and a dense one that is the same along both
    axes, by the fastest way where nobody looks at the module itself."""
    if untouched(conv, nn.Conv2d) and conv.padding_mode == "zeros":
        stride, padding, dilation, size = conv.stride, conv.padding, conv.dilation, conv.kernel_size
        if size[0] == size[1] and stride[0] == stride[1] and padding[0] == padding[1] and dilation[0] == dilation[1]:
            reach = dilation[0] * (size[0] // 2)
            if conv.groups == conv.in_channels == conv.out_channels and stride[0] == 1 and padding[0] == reach:
                return depthwise(x, conv.weight, conv.bias, dilation[0])
            check_reach(conv, x.shape[1:-1])
            if conv.groups == 1 and dilation[0] == 1:
                return map_convolution(x, conv.weight, conv.bias, stride[0], int(padding[0]))
    if isinstance(conv, nn.Conv2d | nn.Conv3d):
        check_reach(conv, x.shape[1:-1])
    y: Tensor = conv(x.movedim(-1, 1)).movedim(1, -1)
    return y
