"""One residual around a whole block (ConvNeXt, arXiv 2201.03545, figure 4)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...context import Context
from ...errors import CannotRun
from .scheme import Scheme, Sublayer

PART = "sublayers of a 'single' block feed each other: take all of them away, or none"


class Single(Scheme):
    """x + (sublayer_n o norm ... norm o sublayer_1)(x): the first sublayer reads the stream itself, each later one the
    norm of the one before it, and only the last one's output, scaled once, meets the stream again."""

    norms_at = "in"
    separable = False

    def _norm(self, dim: int, index: int, norm: Any, place: Any) -> nn.Module:
        return nn.Identity() if index == 0 else super()._norm(dim, index, norm, place)

    def _scale(self, dim: int, index: int, num_sublayers: int, scale: float | None) -> nn.Module:
        return super()._scale(dim, index, num_sublayers, scale if index == num_sublayers - 1 else None)

    def step(self, stream: Any, index: int, sublayer: Sublayer, ctx: Context) -> Any:
        if index and not isinstance(stream, tuple):
            raise CannotRun(PART)
        x, y = stream if index else (stream, stream)
        y = sublayer(self.normed(index, y, ctx))
        return self.added(index, x, y) if index == len(self.norms) - 1 else (x, y)

    def skip(self, stream: Any) -> Any:
        if isinstance(stream, tuple):
            raise CannotRun(PART)
        return stream

    def finish(self, stream: Any) -> Tensor:
        return stream[0] if isinstance(stream, tuple) else stream  # within a block the chain has not yet joined
