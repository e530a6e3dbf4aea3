"""One dense layer over the tokens: MetaFormer's ablation (arXiv 2111.11418, table 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context, State
from ...errors import CannotRun
from ..dense import Dense
from ..resize import resize_square, resize_vector
from .mixer import Mixer


class SpatialFC(Mixer):
    """Each channel's N tokens times an N x N matrix, the same for all channels; bound to one grid of N tokens."""

    EXAMPLES = ({}, {"bias": True})
    fixed_grid = True

    def __init__(self, dim: int, *, bias: bool = False, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = grid
        tokens = torch.Size(grid).numel()
        self.mix = Dense(tokens, tokens, bias=bias)
        nn.init.trunc_normal_(self.mix.weight, std=0.02)
        self.resizes = {"mix.weight": resize_square} | ({"mix.bias": resize_vector} if bias else {})

    def bound_tokens(self, name: str, shape: tuple[int, ...]) -> int:
        return shape[-1]

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        rows = x.flatten(1, -2).mT
        if rows.shape[-1] != self.mix.in_features:
            raise CannotRun(f"spatial_fc is bound to {self.mix.in_features} tokens, got {rows.shape[-1]}; set img_size")
        return self.mix(rows).mT.reshape(x.shape)
