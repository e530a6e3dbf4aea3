"""Reordered norm: the norm on what is added (Swin V2, arXiv 2111.09883; OLMo 2, arXiv 2501.00656)."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from .scheme import Scheme, Sublayer


class Reordered(Scheme):
    """x + norm(sublayer(x))."""

    norms_at = "out"

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        return self.added(index, stream, self.normed(index, sublayer(stream), ctx))
