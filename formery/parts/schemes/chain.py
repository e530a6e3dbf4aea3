"""No residual: each sublayer's output is what the next one reads."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from .scheme import Scheme, Sublayer


class Chain(Scheme):
    """sublayer(norm(x)); of an item whose branch is dropped in training nothing is left."""

    norms_at = None
    separable = False
    only_adds = False

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        return self.branch(index, sublayer(self.normed(index, stream, ctx)))
