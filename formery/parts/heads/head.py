"""What every head is, and what bodies hand it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...context import Context
from ..part import Part


@dataclass(slots=True)
class Features:
    """What a body returns."""

    x: Tensor
    """Last tokens, (B, *grid, C) or (B, prefix + tokens, C)."""
    grid: tuple[int, ...] = ()
    """The grid of flattened tokens; empty where `x` has it."""
    prefix: int = 0
    maps: dict[int, Tensor] = field(default_factory=dict)
    """The maps asked for by `ctx.taps`, tokens as `x`."""
    extras: dict[str, Any] = field(default_factory=dict)


class Head(Part):
    """Maps a body's `Features` to the output. `finish` is what belongs to the features, `forward` the rest."""

    causal: bool = False
    """Whether every mixer must be causal under it."""
    num_classes: int = 0

    def finish(self, x: Tensor, ctx: Context) -> Tensor:
        """What is done to the last tokens before they count as features: the norm, where it comes before pooling."""
        return x

    def forward(self, features: Features, ctx: Context) -> Any:
        raise NotImplementedError
