"""Multi-head convolution as a token mixer (Next-ViT, arXiv 2207.05501, equation 3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from ..convolution import channels_last_conv, over_grid
from ..dense import Dense
from ..norms.norm import Norm
from .mixer import Mixer


class MultiHeadConv(Mixer):
    """Each head, `head_dim` channels, convolved alone with a kernel of `size` x `size`; norm, activation, and a dense
    layer over all heads. No biases; zeros beyond the border."""

    EXAMPLES = ({"head_dim": 8}, {"head_dim": 16, "size": 5, "norm": None, "activation": "gelu"})
    unseen = ("activation",)
    grids = (2,)
    reads, writes = ("conv",), ("out",)

    def __init__(
        self,
        dim: int,
        *,
        head_dim: Annotated[int, Field(gt=0)] = 32,
        size: Annotated[int, Field(gt=0)] = 3,
        norm: NormSpec | None = "batch",
        activation: Activation = "relu",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("multi_head_conv")
        if dim % head_dim:
            raise BadSpec(f"head_dim ({head_dim}) does not divide {dim}; choose a divisor")
        if size % 2 == 0:
            raise BadSpec(f"size is an odd number, got {size}")
        self.heads, self.activation = dim // head_dim, activation
        self.conv = channels_last_conv(dim, dim, size, padding=size // 2, groups=self.heads, bias=False)
        self.norm: Norm | None = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.looks_at_batch = getattr(self.norm, "looks_at_batch", False)
        self.out = Dense(dim, dim, bias=False)
        self.neighbours = () if norm is None else (("conv", "norm"),)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = over_grid(self.conv, x)
        if self.norm is not None:
            y = self.norm(y, ctx)
        return self.out(ACTIVATIONS[self.activation](y))
