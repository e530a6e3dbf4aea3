"""Squeeze and excitation (arXiv 1709.01507): each channel is weighted by what the whole grid says."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ..activations import ACTIVATIONS, Activation
from ..dense import Dense
from .mixer import Mixer


class SqueezeExcite(Mixer):
    """x times sigmoid(expand(activation(reduce(mean of x over the tokens)))), with `ratio` of the channels between."""

    EXAMPLES = ({}, {"ratio": 0.5, "activation": "silu"})
    unseen = ("activation",)

    def __init__(
        self, dim: int, *, ratio: Annotated[float, Field(gt=0)] = 0.25, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        hidden = max(1, int(dim * ratio))
        self.activation: Activation = activation
        self.reduce, self.expand = Dense(dim, hidden), Dense(hidden, dim)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        mean = x.mean(tuple(range(1, x.dim() - 1)), keepdim=True)
        return x * torch.sigmoid(self.expand(ACTIVATIONS[self.activation](self.reduce(mean))))
