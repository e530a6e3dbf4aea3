"""Global response norm (ConvNeXt V2, arXiv 2301.00808, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context
from .norm import Norm


class GlobalResponse(Norm):
    """x (1 + weight n) + bias, with n a channel's norm over the grid beside the mean norm of all channels; each item
    alone. Weight and bias begin at zero, where it changes nothing; with `bias` false there is none.

    The output at one place depends on the whole map.
    """

    EXAMPLES = ({}, {"bias": False})
    over = "grid and channels"

    def __init__(self, dim: int, *, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def factors(self, x: Tensor) -> Tensor:
        """(B, 1, ..., C): 1 + weight n of x (B, *grid, C)."""
        response = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim() - 1)), keepdim=True)
        return torch.addcmul(torch.ones_like(self.weight), self.weight, response / (response.mean(-1, True) + self.eps))

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        factors = self.factors(x)
        return x * factors if self.bias is None else torch.addcmul(self.bias, x, factors)
