"""A frozen random matrix over the tokens: MetaFormer's ablation (arXiv 2111.11418, table 5)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...context import NOTHING, Context, State
from ...errors import CannotRun
from ..part import Resize
from ..resize import resize_square
from .mixer import Mixer


class Random(Mixer):
    """Tokens times the softmax of rows of N numbers drawn evenly from 0 to 1, once, and never trained; bound to one
    grid of N tokens."""

    fixed_grid = True
    matrix: Tensor
    resizes: Mapping[str, Resize] = {"matrix": resize_square}

    def __init__(self, dim: int, *, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = grid
        tokens = torch.Size(grid).numel()
        self.register_buffer("matrix", torch.rand(tokens, tokens).softmax(-1))

    def bound_tokens(self, name: str, shape: tuple[int, ...]) -> int:
        return shape[-1]

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        rows = x.flatten(1, -2)
        if rows.shape[1] != self.matrix.shape[1]:
            raise CannotRun(f"random is bound to {self.matrix.shape[1]} tokens, got {rows.shape[1]}; set img_size")
        return (self.matrix @ rows).view_as(x)
