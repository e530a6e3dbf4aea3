"""What every norm is."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn

from ...context import NOTHING, Context
from ...spec import NormSpec, Place, build
from ..part import Part


class Norm(Part):
    """Maps (B, *grid, C) to the same shape, with statistics over the axes that it names."""

    over: ClassVar[Literal["channels", "grid and channels", "batch and grid"]] = "channels"

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        raise NotImplementedError


def normed(norm: nn.Module | None, x: Tensor, ctx: Context) -> Tensor:
    """The norm behind a layer, where it has not been folded into it."""
    return x if norm is None else norm(x, ctx)


def norms_by(spec: NormSpec, place: Place) -> Callable[[int, str], nn.Module]:
    """What builds norms as `spec` says, of a width and under a name inside a part at `place`."""

    def normed_by(width: int, name: str) -> nn.Module:
        module: nn.Module = build("norm", spec, width, place=place.at(name))
        return module

    return normed_by
