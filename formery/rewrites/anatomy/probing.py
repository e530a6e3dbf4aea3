"""Questions about single layers."""

from __future__ import annotations

import torch
from torch import nn

from ...parts.dense import Dense
from ...parts.norms.batch import Batch

LINEARS = (nn.Linear, Dense)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (Batch, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Exact classes: a subclass may do more in its forward than its weights say."""


def is_dense(module: nn.Module) -> bool:
    """Whether it is a plain linear or convolution, with plain tensors as weights."""
    if type(module) not in (*LINEARS, *CONVOLUTIONS):
        return False
    return type(module.weight.data) is torch.Tensor and not hasattr(module, "parametrizations")


def is_pointwise(module: nn.Module) -> bool:
    """Whether it is a plain linear, or a convolution that reads one place at a time."""
    if not is_dense(module):
        return False
    return isinstance(module, nn.Linear) or (set(module.kernel_size) == {1} and pads_nothing(module))  # type: ignore[arg-type]


def pads_nothing(module: nn.Module) -> bool:
    """Whether a linear or convolution reads no zeros beyond the border."""
    if isinstance(module, nn.Linear):
        return True
    padding = module.padding
    if isinstance(padding, str):
        return padding == "valid" or set(module.kernel_size) == {1}  # type: ignore[arg-type]
    return not any(padding)  # type: ignore[arg-type]


def mixes_channels(module: nn.Module) -> bool:
    """Whether each of its outputs reads all of its inputs."""
    return isinstance(module, nn.Linear) or (isinstance(module, CONVOLUTIONS) and module.groups == 1)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether it is a plain batch norm with running statistics, so that evaluation is an affine map."""
    return type(module) in BATCH_NORMS and module.running_mean is not None
