"""Sublayers beside the stream: what they add is read once and forgotten (UniFormer's divided attention)."""

from __future__ import annotations

from torch import Tensor

from ...context import Context
from ...spec import NormSpec, Place
from .scheme import Scheme, Sublayer, check_numbers

Forked = tuple[Tensor, Tensor | None]


class Detour(Scheme):
    """x + sublayer(norm(r)), where r is x, or x with what the sublayers `aside` in front of it have added.

    The sublayers numbered in `aside` leave the stream as it was: only the next one reads what they add to it. The last
    sublayer of a block never stands aside. In the video model of UniFormer (arXiv 2201.04676, its published code)
    attention over space reads the sum with attention over time, which the residual stream passes by.
    """

    EXAMPLES = (
        {},
        {"aside": [0]},
        {"aside": [0], "norm": "rms", "scale": 0.1},
    )
    norms_at = "in"

    def __init__(
        self,
        dim: int,
        num_sublayers: int,
        *,
        aside: list[int] | None = None,
        norm: NormSpec | None = "layer",
        scale: float | None = None,
        drop_path: float = 0.0,
        bare: list[int] | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(dim, num_sublayers, norm=norm, scale=scale, drop_path=drop_path, bare=bare, place=place)
        check_numbers("aside", aside, num_sublayers)
        self.aside = frozenset(aside or ()) - {num_sublayers - 1}

    def start(self, x: Tensor) -> Forked:
        return x, None

    def step(self, stream: Forked, index: int, sublayer: Sublayer, ctx: Context) -> Forked:
        x, beside = stream
        read = x if beside is None else beside
        y = sublayer(self.normed(index, read, ctx))
        return (x, self.added(index, read, y)) if index in self.aside else (self.added(index, x, y), None)

    def skip(self, stream: Forked) -> Forked:
        return stream[0], None

    def finish(self, stream: Forked) -> Tensor:
        return stream[0]
