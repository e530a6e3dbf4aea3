"""The Transformer's feed-forward network (arXiv 1706.03762, section 3.3)."""

from __future__ import annotations

from torch import Tensor

from ...context import NOTHING, Context, State
from ...ops.by_rows import by_rows
from ..activations import Activation, Learned, activation_of
from ..dense import Dense, activated, width_of
from ..widths import positive
from .channel import Channel


class MLP(Channel):
    """Expand to `hidden` channels (`ratio` times the width unless given), activation, reduce."""

    EXAMPLES = ({}, {"hidden": 24, "activation": "relu2", "bias": False}, {"activation": "star_relu"})
    unseen = ("activation",)
    reads, writes = ("expand",), ("reduce",)

    def __init__(
        self,
        dim: int,
        *,
        ratio: float = 4.0,
        hidden: int | None = None,
        activation: Activation | Learned = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = positive("hidden", int(dim * ratio) if hidden is None else hidden)
        self.activation = activation_of(activation)
        self.expand, self.reduce = Dense(dim, hidden, bias=bias), Dense(hidden, dim, bias=bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return by_rows(self._tokens, x, width_of(self.expand))

    def _tokens(self, x: Tensor) -> Tensor:
        return self.reduce(activated(self.expand, x, self.activation))
