"""Ladder residual (arXiv 2501.06589): a sublayer does not wait for the sum over devices of the one before it."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from .scheme import Scheme, Sublayer

Pending = tuple[Tensor, Tensor | None]


class Ladder(Scheme):
    """Sublayer n reads the stream without sublayer n-1, whose output is pending, into the next block too."""

    norms_at = "in"

    def start(self, x: Tensor) -> Pending:
        return x, None

    def step(self, stream: Pending, index: int, sublayer: Sublayer, ctx: Context) -> Pending:
        settled, pending = stream
        y = self.branch(index, sublayer(self.normed(index, settled, ctx)))
        return settled if pending is None else settled + pending, y

    def skip(self, stream: Pending) -> Pending:
        return self.finish(stream), None

    def finish(self, stream: Pending) -> Tensor:
        settled, pending = stream
        return settled if pending is None else settled + pending
