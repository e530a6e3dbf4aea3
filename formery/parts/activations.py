"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.linear.products import ACTIVATIONS as FUSED

Activation = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu", "tanh"]


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {**FUSED, "relu2": _relu2, "tanh": torch.tanh}
