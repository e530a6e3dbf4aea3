"""Pre-norm residual: the Transformer's usual wiring since GPT-2."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from .scheme import Scheme, Sublayer


class Pre(Scheme):
    """x + sublayer(norm(x))."""

    norms_at = "in"

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        return self.added(index, stream, sublayer(self.normed(index, stream, ctx)))
