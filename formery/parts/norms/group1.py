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

    EXAMPLES = ({}, {"bias": False})
    unseen = ("eps",)
    over = "grid and channels"

    def __init__(self, dim: int, *, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        y = F.layer_norm(x, x.shape[1:], eps=self.eps)
        return y * self.weight if self.bias is None else torch.addcmul(self.bias, y, self.weight)
