"""A feed-forward network with a depthwise convolution in its wide middle (MobileNetV2, arXiv 1801.04381, section 3.3;
EfficientFormerV2's, arXiv 2212.08059, section 3.1)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from ..convolution import depthwise_conv, over_grid
from ..dense import Dense, activated
from ..norms.norm import normed
from ..widths import positive
from .mixer import Mixer


class InvertedBottleneck(Mixer):
    """Expand to `ratio` times the width, convolve each channel over `size` x `size` neighbours, reduce; a norm behind
    each of the three, an activation behind the first two.
    """

    EXAMPLES = ({}, {"ratio": 1.5, "size": 5, "norm": "layer", "activation": "relu"})
    unseen = ("activation",)
    grids = (2,)
    reads, writes = ("expand",), ("reduce_norm",)
    neighbours = (("expand", "expand_norm"), ("conv", "conv_norm"), ("reduce", "reduce_norm"))

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(gt=0)] = 4.0,
        size: Annotated[int, Field(gt=0)] = 3,
        norm: NormSpec = "batch",
        activation: Activation = "gelu",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("inverted_bottleneck")
        hidden = positive("hidden", int(dim * ratio))
        if size % 2 == 0:
            raise BadSpec(f"size is an odd number, got {size}")
        self.activation: Activation = activation
        self.expand, self.reduce = Dense(dim, hidden), Dense(hidden, dim)
        self.conv = depthwise_conv(hidden, size)
        self.expand_norm, self.conv_norm, self.reduce_norm = (
            build("norm", norm, n, place=place.at("norm")) for n in (hidden, hidden, dim)
        )

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        act = ACTIVATIONS[self.activation]
        if self.expand_norm is None:
            y = activated(self.expand, x, self.activation)
        else:
            y = act(self.expand_norm(self.expand(x), ctx))
        y = act(normed(self.conv_norm, over_grid(self.conv, y), ctx))
        return normed(self.reduce_norm, self.reduce(y), ctx)
