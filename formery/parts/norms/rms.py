"""Root mean square norm (arXiv 1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context
from ...ops.rms_norm import rms_norm
from .norm import Norm


class RMS(Norm):
    """x / sqrt(mean(x^2) + eps) * weight (+ bias), each token alone; statistics in float32 at least.

    A bias is unusual; it is what remains of a layer norm's when that is rewritten to an RMS norm.
    """

    EXAMPLES = ({}, {"bias": True}, {"affine": False})
    unseen = ("eps",)

    def __init__(self, dim: int, *, eps: float = 1e-6, affine: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.shape, self.eps = (dim,), eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine and bias else None

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        y = rms_norm(x, self.weight, self.eps)
        return y if self.bias is None else y + self.bias
