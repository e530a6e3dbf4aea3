"""The gated feed-forward network with SiLU (arXiv 2002.05202)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...ops.by_rows import by_rows
from ..dense import Dense, width_of
from ..widths import positive
from .channel import Channel


class SwiGLU(Channel):
    """reduce(silu(gate x) * up x); `expand` holds gate and up, in this order, as one product.

    `hidden` is 8/3 of the width, rounded up to a multiple of 8, unless given.
    """

    EXAMPLES = ({}, {"hidden": 24, "bias": True})
    reads, writes = ("expand",), ("reduce",)

    def __init__(self, dim: int, *, hidden: int | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden = positive("hidden", -(-8 * dim // 24) * 8 if hidden is None else hidden)
        self.expand, self.reduce = Dense(dim, 2 * hidden, bias=bias), Dense(hidden, dim, bias=bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return by_rows(self._tokens, x, width_of(self.expand))

    def _tokens(self, x: Tensor) -> Tensor:
        gate, up = self.expand(x).chunk(2, dim=-1)
        return self.reduce(F.silu(gate) * up)
