"""A feed-forward network with a norm behind each layer (LMUFormer's channel mixer, arXiv 2402.04882, section 4)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context, State
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from ..dense import Dense
from ..widths import positive
from .channel import Channel


class NormedMLP(Channel):
    """Expand to `ratio` times the width, norm, activation, reduce, norm, last activation."""

    EXAMPLES = ({}, {"ratio": 1.5, "norm": "layer", "activation": "silu", "last": "tanh"})
    reads = ("expand",)

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(gt=0)] = 4.0,
        norm: NormSpec = "batch",
        activation: Activation = "gelu",
        last: Activation = "relu",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("normed_mlp")
        hidden = positive("hidden", int(dim * ratio))
        self.activation, self.last = activation, last
        self.expand, self.reduce = Dense(dim, hidden), Dense(hidden, dim)
        self.expand_norm, self.reduce_norm = (build("norm", norm, n, place=place.at("norm")) for n in (hidden, dim))
        self.neighbours = (("expand", "expand_norm"), ("reduce", "reduce_norm"))

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = ACTIVATIONS[self.activation](_normed(self.expand_norm, self.expand(x), ctx))
        return ACTIVATIONS[self.last](_normed(self.reduce_norm, self.reduce(y), ctx))


def _normed(norm: nn.Module | None, x: Tensor, ctx: Context) -> Tensor:
    """The norm, where it has not been folded into the layer before it."""
    return x if norm is None else norm(x, ctx)
