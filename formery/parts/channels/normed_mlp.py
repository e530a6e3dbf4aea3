"""A feed-forward network with a norm behind each layer (LMUFormer's channel mixer, arXiv 2402.04882, section 4;
EfficientFormer's, arXiv 2206.01191, equation 4)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from ..dense import Dense, activated
from ..norms.norm import normed
from ..widths import positive
from .channel import Channel


class NormedMLP(Channel):
    """Expand to `ratio` times the width, norm, activation, reduce, norm, `last` activation where one is given."""

    EXAMPLES = ({}, {"ratio": 1.5, "norm": "layer", "activation": "silu", "last": "tanh"}, {"last": None})
    unseen = ("activation",)
    reads = ("expand",)

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(gt=0)] = 4.0,
        norm: NormSpec = "batch",
        activation: Activation = "gelu",
        last: Activation | None = "relu",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("normed_mlp")
        hidden = positive("hidden", int(dim * ratio))
        self.activation: Activation = activation
        self.last: Activation | None = last
        self.expand, self.reduce = Dense(dim, hidden), Dense(hidden, dim)
        self.expand_norm, self.reduce_norm = (build("norm", norm, n, place=place.at("norm")) for n in (hidden, dim))
        self.writes = ("reduce_norm",) if last is None else ()
        self.neighbours = (("expand", "expand_norm"), ("reduce", "reduce_norm"))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        if self.expand_norm is None:
            y = activated(self.expand, x, self.activation)
        else:
            y = ACTIVATIONS[self.activation](self.expand_norm(self.expand(x), ctx))
        y = normed(self.reduce_norm, self.reduce(y), ctx)
        return y if self.last is None else ACTIVATIONS[self.last](y)
