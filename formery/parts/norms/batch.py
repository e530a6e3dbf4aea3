"""Batch norm over batch and grid (arXiv 1502.03167)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context
from .norm import Norm

COUNTER = "num_batches_tracked"
"""The buffer of torch's batch norms that counts batches: files of all dialects have it, norms here have no use for it.
"""


class Batch(Norm):
    """Statistics of the batch in training, running ones in evaluation, where it is an affine map and can be folded."""

    unseen = ("eps",)

    over = "batch and grid"
    looks_at_batch = True
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        y = F.batch_norm(
            x.movedim(-1, 1), self.running_mean, self.running_var, self.weight, self.bias,
            self.training, self.momentum, self.eps,
        )  # fmt: skip
        return y.movedim(1, -1)


def affine_map(norm: Any) -> tuple[Tensor, Tensor]:
    """(s, t), both (C,) in float64, with norm(x) = s x + t in evaluation; of a batch norm here or of torch."""
    mean, var = norm.running_mean.double(), norm.running_var.double()
    s = torch.rsqrt(var + norm.eps)
    if norm.weight is not None:
        s = s * norm.weight.double()
    t = -mean * s
    return s, t if norm.bias is None else t + norm.bias.double()
