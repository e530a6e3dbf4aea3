"""What every position is that is added to the scores of attention."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ... import registry
from ...context import NOTHING, Context
from ...errors import BadSpec
from ...spec import Place, PositionSpec, build
from .position import Position


class ScoreBias(Position):
    """A number for each head, query and key, added to their score before the softmax.

    Built as `ScoreBias(heads, *, option=default, ..., grid)`: the heads stand where others have their width, and `grid`
    is that of the tokens that meet: a window's, or a whole map's.
    """

    acts_on: ClassVar[Literal["tokens", "queries and keys", "scores"]] = "scores"
    heads: int
    grid: tuple[int, ...]
    stride: int = 1
    """Queries stand on every so-many-th place alone, along each axis."""

    def bias(self, grid: tuple[int, ...] | None = None) -> Tensor:
        """(heads, queries, N) for the N tokens of `grid` in raster order; of its own grid unless given."""
        raise NotImplementedError

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        """Scores (B, heads, queries, N) with the bias of the context's grid added; of its own where it has none."""
        return x + self.bias(ctx.grid or None).to(x.dtype)


def build_bias(spec: PositionSpec, heads: int, place: Place, grid: tuple[int, ...], stride: int = 1) -> ScoreBias:
    """The position that `spec` describes for the scores of `heads` on a grid, every `stride`-th place of which asks.

    BadSpec where the position acts on something else, or its queries stand on other places.
    """
    position = build("position", spec, heads, place=place.at("position", grid=grid))
    if not isinstance(position, ScoreBias):
        found = {kind: registry.find("position", kind) for kind in registry.index("position")}
        kinds = ", ".join(kind for kind, part in found.items() if issubclass(part, ScoreBias))
        raise BadSpec(f"the position is added to scores: {kinds}; put others on the body")
    if position.stride != stride:
        asks = f"every {stride} places along each axis one asks" if stride > 1 else "every place asks"
        raise BadSpec(f"{asks}: give the position stride {stride}, not {position.stride}")
    return position
