"""An MLP over the tokens: MLP-Mixer (arXiv 2105.01601, equation 1)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...errors import CannotRun
from ..activations import ACTIVATIONS, Activation
from ..dense import Dense
from .mixer import Mixer

Ratio = Annotated[float, Field(gt=0)]


class SpatialMLP(Mixer):
    """Dense over the N tokens to `ratio` * N, activation, dense back; the same for all channels; bound to one grid.

    Its weights stay at that grid: the hidden units, whose number follows from it, stand for no places.
    """

    EXAMPLES = ({}, {"ratio": 2.0, "activation": "relu"})
    unseen = ("activation",)
    fixed_grid = True
    resizable = False

    def __init__(
        self, dim: int, *, ratio: Ratio = 0.5, activation: Activation = "gelu", bias: bool = True, grid: tuple[int, ...]
    ) -> None:
        super().__init__()
        tokens = torch.Size(grid).numel()
        hidden = max(1, int(tokens * ratio))
        self.activation = ACTIVATIONS[activation]
        self.expand, self.reduce = Dense(tokens, hidden, bias=bias), Dense(hidden, tokens, bias=bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        rows = x.flatten(1, -2).mT
        if rows.shape[-1] != self.expand.in_features:
            raise CannotRun(
                f"spatial_mlp is bound to {self.expand.in_features} tokens, got {rows.shape[-1]}; set img_size"
            )
        return self.reduce(self.activation(self.expand(rows))).mT.reshape(x.shape)
