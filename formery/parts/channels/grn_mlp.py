"""A feed-forward network with a global response norm inside (ConvNeXt V2, arXiv 2301.00808)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...ops.by_rows import by_items
from ...ops.forms import plain
from ...ops.linear import linear
from ...spec import NormSpec, Place, build
from ..activations import Activation
from ..dense import Dense, activated, width_of
from ..norms.global_response import GlobalResponse
from ..part import untouched
from ..widths import positive
from .channel import Channel


class GRNMLP(Channel):
    """Expand to `hidden` channels (`ratio` times the width unless given), activation, global response norm, reduce,
    and a `norm` where one is given (UniRepLKNet: batch), in whose place the second dense layer has no bias.

    With `shift` false the global response norm has no bias, as after it was folded into the second dense layer's.
    """

    EXAMPLES = ({}, {"hidden": 24, "norm": "batch"}, {"ratio": 2.0, "shift": False})
    unseen = ("activation",)
    over = "grid and channels"
    reads = ("expand",)

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(gt=0)] = 4.0,
        hidden: int | None = None,
        activation: Activation = "gelu",
        shift: bool = True,
        norm: NormSpec | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        hidden = positive("hidden", int(dim * ratio) if hidden is None else hidden)
        self.activation: Activation = activation
        self.expand = Dense(dim, hidden)
        self.grn = GlobalResponse(hidden, bias=shift)
        self.reduce = Dense(hidden, dim, bias=norm is None)
        self.norm = None if norm is None else build("norm", norm, dim, place=(place or Place("channel")).at("norm"))
        self.writes = ("reduce",) if norm is None else ("norm",)
        self.neighbours = (("grn", "reduce"),) + ((("reduce", "norm"),) if norm is not None else ())

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = by_items(self._items, x, width_of(self.expand))
        return y if self.norm is None else self.norm(y, ctx)

    def _items(self, x: Tensor) -> Tensor:
        y = activated(self.expand, x, self.activation)
        known = untouched(self.grn, GlobalResponse) and untouched(self.reduce, Dense)
        if not known or not plain(y) or y.shape[0] != 1 or y.numel() <= self.reduce.weight.numel():
            return self.reduce(self.grn(y))
        # The factors of one item go over the weights, which are fewer numbers than the widened tokens.
        weight = self.reduce.weight
        bias: Tensor | None = self.reduce.bias
        if self.grn.bias is not None:
            shift = weight @ self.grn.bias
            bias = shift if bias is None else bias + shift
        return linear(y, weight * self.grn.factors(y).view(1, -1), bias)
