"""First values of dense layers and convolutions."""

from __future__ import annotations

from torch import nn


def draw(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d, std: float | None = 0.02) -> None:
    """Weights from a truncated normal of `std` (None: 1 / sqrt(inputs of a unit)), zero biases."""
    nn.init.trunc_normal_(layer.weight, std=layer.weight[0].numel() ** -0.5 if std is None else std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
