"""Tokens that are several tensors: branches of their own widths and grids, one tuple for all of them.

Stem, body and head that know such tokens have tuples for width, grid and stride as well, one entry a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Tokens = Tensor | tuple[Tensor, ...]
Widths = int | tuple[int, ...]
Grids = tuple[int, ...] | tuple[tuple[int, ...], ...]


def several(value: Any) -> tuple[Any, ...]:
    """What is there for each tensor of tokens (tensors, widths, strides); one where they are one tensor."""
    return value if isinstance(value, tuple) else (value,)


def grids(grid: Any) -> tuple[tuple[int, ...], ...]:
    """The grid of each tensor of tokens; one where they are one tensor."""
    return grid if grid and isinstance(grid[0], tuple) else (grid,)


def each(function: Callable[..., Any], *values: Any) -> Any:
    """`function` of the values; where some are tuples, one entry a tensor, the tuple of what it gives for each."""
    count = next((len(value) for value in values if isinstance(value, tuple)), None)
    if count is None:
        return function(*values)
    spread = [value if isinstance(value, tuple) else (value,) * count for value in values]
    return tuple(function(*items) for items in zip(*spread, strict=True))
