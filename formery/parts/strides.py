"""Sizes and strides of grids: one number for all axes, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..errors import BadSpec

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class PerAxis:
    """A stride of its own for each axis of a grid: a video's time, height and width.

    Multiplied by another stride it is that of both one after the other. (A tuple of strides is one a branch.)
    """

    values: tuple[int, ...]

    def __mul__(self, other: int | PerAxis) -> PerAxis:
        others = per_axis(other, len(self.values))
        return PerAxis(tuple(a * b for a, b in zip(self.values, others, strict=True)))

    __rmul__ = __mul__


def per_axis(value: int | Sequence[int] | PerAxis, rank: int, name: str = "stride") -> tuple[int, ...]:
    """One number for each of `rank` axes; BadSpec where there are as many as another grid has axes."""
    given = value.values if isinstance(value, PerAxis) else value
    values = (given,) * rank if isinstance(given, int) else tuple(given)
    if len(values) != rank:
        raise BadSpec(f"{name}: one number for all axes or one each, got {list(values)}; here the grid is {rank}-D")
    return values


def as_stride(values: tuple[int, ...]) -> int | PerAxis:
    """One number where all axes have the same."""
    return values[0] if len(set(values)) == 1 else PerAxis(values)
