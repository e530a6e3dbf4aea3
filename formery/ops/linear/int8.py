"""Dense layers whose weights are read as int8: for single tokens, which take as long as the weights take from memory.

Weights are rounded a row at a time to 255 steps, evenly about zero; the sums are float32 and what comes in is rounded
to bfloat16, because that is the product that torch has. The error is that of both roundings: 0.5 % of an output (root
mean squares) for weights drawn evenly, 0.8 to 0.9 % for normal ones. At widths of 768 to 3072 a token takes 0.4 to 0.6
of the time of float32 weights and 0.6 to 0.7 of bfloat16's (two threads of an AMD EPYC, torch 2.13).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..remembered import Remembered
from .products import ACTIVATIONS, Activation

STEPS = 127
"""The largest of the whole numbers."""
GROUP = 16
"""Input channels are a multiple of it: torch's product reads beyond the end of others."""
FEW = 16
"""Rows from which on a float product is faster."""


class Int8(NamedTuple):
    """A weight (out, in) as whole numbers times a scale for each row."""

    numbers: Tensor  # (out, in) int8
    scale: Tensor  # (out,) float32
    ones: Tensor  # (out,) bfloat16, for the product, which would round the scale

    def widened(self) -> Tensor:
        """The weight that they stand for, float32."""
        return self.numbers * self.scale[:, None]


def rounded(weight: Tensor) -> Int8:
    """The nearest whole numbers; a row of zeros stays one."""
    wide = weight.float()
    scale = wide.abs().amax(1) / STEPS
    numbers = (wide / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8)
    return Int8(numbers.contiguous(), scale, torch.ones(len(scale), dtype=torch.bfloat16, device=weight.device))


class Int8Weight(Remembered[Int8]):
    """A weight's int8 copy, a quarter of float32's memory more, made anew when the weight changes."""

    def __init__(self) -> None:
        super().__init__(rounded)

    def __reduce__(self) -> tuple[type[Int8Weight], tuple[()]]:  # type: ignore[override]
        return Int8Weight, ()


def applies(rows: int, weight: Tensor) -> bool:
    """Whether torch's product takes so many rows times this weight, faster than a float product does."""
    return 0 < rows < FEW and weight.is_cpu and weight.shape[0] > 0 and weight.shape[1] % GROUP == 0


def reference(x: Tensor, weight: Int8, bias: Tensor | None = None, activation: Activation | None = None) -> Tensor:
    """activation(x (..., in) W^T + bias) with the weight that the whole numbers stand for."""
    y = (x.float() @ weight.widened().mT).to(x.dtype)
    y = y if bias is None else y + bias
    return y if activation is None else ACTIVATIONS[activation](y)


def product(x: Tensor, weight: Int8, bias: Tensor | None = None, activation: Activation | None = None) -> Tensor:
    """The same by torch's product, for few rows x (..., in)."""
    rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()
    sums: Tensor = torch.ops.aten._weight_int8pack_mm(rows, weight.numbers, weight.ones)
    y = (sums * weight.scale).to(x.dtype).view(*x.shape[:-1], -1)
    y = y if bias is None else y + bias
    return y if activation is None else ACTIVATIONS[activation](y)
