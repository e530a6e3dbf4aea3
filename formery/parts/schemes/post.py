"""Post-norm residual: the first Transformer's wiring (arXiv 1706.03762)."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from .scheme import Scheme, Sublayer


class Post(Scheme):
    """norm(x + sublayer(x))."""

    norms_at = "sum"
    only_adds = False

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        return self.normed(index, stream + self.branch(index, sublayer(stream)), ctx)
