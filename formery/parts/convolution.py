"""The convolution as parts hold it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

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
