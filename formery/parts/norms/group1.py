"""Group norm with one group, over grid and channels together (MetaFormer, arXiv 2111.11418, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context
from .norm import Norm


class GroupOne(Norm):
    """Mean and variance over all of an item's tokens and channels; weight and bias a channel.

    Not a layer norm: the output at one place depends on the whole map.
    """

    over = "grid and channels"

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim)), eps

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        y = F.layer_norm(x, x.shape[1:], eps=self.eps)
        return torch.addcmul(self.bias, y, self.weight)
