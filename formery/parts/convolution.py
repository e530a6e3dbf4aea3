"""The convolution as parts hold it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def channels_last_conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
    """`nn.Conv2d` whose kernel lies channels last in memory, as maps do: it is not laid out anew at every call.

    Shapes, names and saved files are those of any other convolution.
    """
    conv = nn.Conv2d(*args, **kwargs)
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    return conv
