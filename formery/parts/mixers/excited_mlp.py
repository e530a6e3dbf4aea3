"""A feed-forward network whose output is weighted by what all tokens say (TNT's option, arXiv 2103.00112, table 6)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...spec import NormSpec, Place, build
from ..activations import Activation
from ..channels.mlp import MLP
from ..dense import Dense
from .mixer import Mixer


class ExcitedMLP(Mixer):
    """y + y * tanh(expand(relu(reduce(norm(mean of y over all tokens))))), where y is what the MLP makes of a token.

    `excited` is the share of the channels between `reduce` and `expand`.
    """

    EXAMPLES = ({}, {"ratio": 2.0, "excited": 0.5, "activation": "relu"})
    unseen = ("activation",)
    reads = ("mlp.expand",)

    def __init__(
        self,
        dim: int,
        *,
        ratio: float = 4.0,
        activation: Activation = "gelu",
        excited: Annotated[float, Field(gt=0)] = 0.25,
        norm: NormSpec = "layer",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place, hidden = place or Place("excited_mlp"), max(1, int(dim * excited))
        self.mlp = MLP(dim, ratio=ratio, activation=activation)
        self.norm = build("norm", norm, dim, place=place.at("norm"))
        self.reduce, self.expand = Dense(dim, hidden), Dense(hidden, dim)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = self.mlp(x)
        mean = self.norm(y.mean(tuple(range(1, y.dim() - 1)), keepdim=True))
        return y + y * torch.tanh(self.expand(F.relu(self.reduce(mean))))
