"""Global response norm (ConvNeXt V2, arXiv 2301.00808, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context
from ...ops.forms import plain
from .norm import Norm


def grid_norm(x: Tensor) -> Tensor:
    """(B, 1, ..., C): the norm of each channel of x (B, *grid, C) over the grid.

    On CPUs torch's norm over other axes than the last takes 2 to 11 times as long as squares, their sum and its root
    (0.44 ms against 0.11 for 56 x 56 x 160, one thread of an AMD EPYC, torch 2.13), whose gradient at zero is none.
    """
    axes = tuple(range(1, x.dim() - 1))
    wide = x.dtype is torch.float32 or x.dtype is torch.float64
    if not wide or not plain(x):
        return torch.linalg.vector_norm(x, dim=axes, keepdim=True)
    return x.square().sum(axes, keepdim=True).sqrt_()


class GlobalResponse(Norm):
    """x (1 + weight n) + bias, with n a channel's norm over the grid beside the mean norm of all channels; each item
    alone. Weight and bias begin at zero, where it changes nothing; with `bias` false there is none.

    The output at one place depends on the whole map.
    """

    EXAMPLES = ({}, {"bias": False})
    unseen = ("eps",)
    over = "grid and channels"

    def __init__(self, dim: int, *, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def factors(self, x: Tensor) -> Tensor:
        """(B, 1, ..., C): 1 + weight n of x (B, *grid, C)."""
        response = grid_norm(x)
        return torch.addcmul(torch.ones_like(self.weight), self.weight, response / (response.mean(-1, True) + self.eps))

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        factors = self.factors(x)
        return x * factors if self.bias is None else torch.addcmul(self.bias, x, factors)
