"""Root mean square norm whose weight is kept as its distance from one (Gemma, arXiv 2403.08295; Qwen3-Next)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context
from ...ops.rms_norm import rms_norm
from .norm import Norm


class RMSAroundOne(Norm):
    """x / sqrt(mean(x^2) + eps) * (1 + weight), each token alone, in float32 at least. Weight decay draws it to one."""

    unseen = ("eps",)

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.shape, self.eps = (dim,), eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        return rms_norm(x.to(wide), 1 + self.weight.to(wide), self.eps).to(x.dtype)
