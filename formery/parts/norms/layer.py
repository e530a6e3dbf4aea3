"""Layer norm over the channels (arXiv 1607.06450)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context
from .norm import Norm


class Layer(Norm):
    """(x - mean) / sqrt(var + eps) * weight + bias, each token alone; the weights begin at `gain`.

    Swin V2 (arXiv 2111.09883, section 3.2) begins at 0, so that fresh branches add nothing.
    """

    EXAMPLES = ({}, {"bias": False}, {"affine": False})
    unseen = ("eps",)

    def __init__(
        self, dim: int, *, eps: float = 1e-5, affine: bool = True, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.shape, self.eps = (dim,), eps
        self.weight = nn.Parameter(torch.full((dim,), gain)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine and bias else None

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        bias: Tensor | None = self.bias
        if self.weight is None and bias is None and x.is_cpu and not torch.compiler.is_compiling():
            # torch's float32 layer norm takes three times as long with neither of them (AMD EPYC, torch 2.13).
            bias = x.new_zeros(self.shape)
        return F.layer_norm(x, self.shape, self.weight, bias, self.eps)
