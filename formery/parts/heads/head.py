"""What every head is, and what bodies hand it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...context import Context
from ..part import Part
from ..several import Grids, grids


@dataclass(slots=True)
class Features:
    """What a body returns."""

    x: Any
    """Last tokens, (B, *grid, C) or (B, prefix + tokens, C); a tuple where they are several tensors."""
    grid: Grids = ()
    """The grid of flattened tokens (of each tensor); empty where `x` has it."""
    prefix: int = 0
    maps: dict[int, Tensor] = field(default_factory=dict)
    """The maps asked for by `ctx.taps`, tokens as `x`."""
    extras: dict[str, Any] = field(default_factory=dict)
    branch_of: dict[int, int] = field(default_factory=dict)
    """Which of several tensors each map is of; empty where tokens are one."""

    def of_map(self, index: int) -> Features:
        """The map as the last tokens of its own."""
        grid = grids(self.grid)[self.branch_of[index]] if self.branch_of else self.grid
        return Features(self.maps[index], grid, self.prefix)


class Head(Part):
    """Maps a body's `Features` to the output. `finish` is what belongs to the features, `forward` the rest.

    Built as `Head(dim, *, ...)`; `dim` is a tuple where tokens are several tensors.
    """

    causal: bool = False
    """Whether every mixer must be causal under it."""
    num_classes: int = 0
    takes_several: bool = False
    """Whether tokens may be several tensors."""
    scorers: tuple[str, ...] = ("fc",)
    """Names of its layers that make scores, where it has them."""
    more_in_training: bool = False
    """Whether there are more outputs in training: a tuple, whose losses count alike."""
    apart: bool = True
    """Whether outputs that there are in training come apart; else training gives what evaluation does."""

    def set_apart(self, apart: bool) -> None:
        """Give the outputs of training apart, or what evaluation gives."""
        self.apart = apart

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that make scores, which another number of classes replaces."""
        return tuple(name for name in self.scorers if getattr(self, name, None) is not None)

    def finish(self, x: Tensor, ctx: Context) -> Tensor:
        """What is done to the last tokens before they count as features: the norm, where it comes before pooling."""
        return x

    def finish_branch(self, x: Tensor, ctx: Context, branch: int) -> Tensor:
        """The same for tensor number `branch` of several."""
        return self.finish(x, ctx)

    def forward(self, features: Features, ctx: Context) -> Any:
        raise NotImplementedError


class Classifier(Head):
    """A head that pools tokens to features and has scores of classes from these."""

    pool: Any
    num_tokens: int = 1
    """Prefix tokens that it reads with pool "token"."""

    def set_pool(self, pool: Any, std: float | None = 0.02) -> None:
        """Another pooling; what it learns is drawn with `std`."""
        self.pool = pool

    def set_classes(self, num_classes: int, std: float | None = 0.02) -> None:
        """A fresh last layer for `num_classes` classes, drawn with `std` as by `initial.draw`; none for 0."""
        raise NotImplementedError

    def pooled(self, features: Features, ctx: Context) -> Tensor:
        """(B, C) what scores are made of."""
        raise NotImplementedError

    def scores(self, pooled: Tensor) -> Tensor:
        """(B, num_classes) from pooled features."""
        raise NotImplementedError

    def forward(self, features: Features, ctx: Context) -> Tensor:
        return outward(self.scores(self.pooled(features, ctx)))


def outward(x: Any) -> Any:
    """What users get: a map (B, *grid, C) with its channels second, anything else as it is; of named ones, each."""
    if hasattr(x, "_make"):
        return x._make(map(outward, x))
    return x.movedim(-1, 1) if x.dim() > 3 else x
