"""The products behind a dense layer: torch's own, oneDNN's, and oneDNN's with a weight laid out for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..forms import watched
from ..remembered import Remembered

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]

_FUSED: dict[str, tuple[str, str]] = {
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
"""oneDNN's names: what is fused to the product, and by which formula."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_,
    "gelu_tanh": lambda x: torch.ops.aten.gelu_(x, approximate="tanh"),
    "relu": F.relu_,
    "silu": lambda x: F.silu(x, inplace=True),
}
"""The same on the tensor's own memory: fresh memory for a widened tensor costs as much as the activation itself."""


def available() -> bool:
    """Whether this build of torch, and its user, have oneDNN products at all."""
    return torch._C._has_mkldnn and torch._C._get_mkldnn_enabled()


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """activation(x (rows, in) @ weight (out, in)^T + bias) by oneDNN; either matrix may be a transposed view."""
    name, formula = ("none", "") if activation is None else _FUSED[activation]
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], formula)
    return y


def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """The same by torch."""
    y = F.linear(x, weight, bias)
    if activation is None:
        return y
    owned = type(y) is Tensor and not torch.is_grad_enabled() and not watched()
    return (IN_PLACE if owned else ACTIVATIONS)[activation](y)


class PackedWeight(Remembered[Tensor]):
    """A weight in the order in which oneDNN reads it, made when first asked for and again when the weight changed.

    It is a copy: it costs the weight's memory once more.
    """

    def __init__(self) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight)

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[()]]:  # type: ignore[override]
        return PackedWeight, ()
