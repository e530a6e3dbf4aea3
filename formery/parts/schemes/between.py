"""Pre-norm whose stream is normed between sublayers (CCT, arXiv 2104.05704; the authors' code, unlike section 3)."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from .scheme import Scheme, Sublayer


class Between(Scheme):
    """x + sublayer(norm(x)) for the first sublayer; each later one finds the stream itself normed: x = norm(x), then
    x + sublayer(x)."""

    norms_at = None  # in front of the first sublayer alone, on the stream itself before the others
    separable = True
    only_adds = False

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        normed = self.normed(index, stream, ctx)
        return self.added(index, normed if index else stream, sublayer(normed))
