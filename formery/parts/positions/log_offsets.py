"""A bias that a small network makes of the logarithms of offsets (Swin V2, arXiv 2111.09883, section 3.3)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ..dense import Dense
from .offset_bias import OffsetBias, offset_rows

HIGHEST = 16.0
"""Of the bias."""


def log_coordinates(grid: tuple[int, ...], trained: tuple[int, ...]) -> Tensor:
    """(offsets, axes) sign(c) log8(1 + |c|), where c is an offset of `grid`, 8 at the end of the window `trained`."""
    rows = 8 * offset_rows(grid).float() / torch.tensor([max(1, n - 1) for n in trained])
    return rows.sign() * (1 + rows.abs()).log2() / math.log2(8)


class LogOffsets(OffsetBias):
    """16 sigmoid(MLP(offset)): two dense layers with a ReLU between, fed with log-spaced offsets, one output a head.

    `trained` is the window that the weights were trained with, whose offsets are the unit; the window's own unless
    given. The network knows any window, so no tensor is bound to one. Weight decay leaves it alone, as
    the authors' code does.
    """

    EXAMPLES = ({"hidden": 8}, {"hidden": 8, "trained": 4})
    unseen = ("trained",)
    undecayed = ("expand.weight", "reduce.weight")
    coordinates: Tensor

    def __init__(
        self,
        dim: int,
        *,
        hidden: Annotated[int, Field(gt=0)] = 512,
        trained: Annotated[int, Field(gt=0)] | None = None,
        grid: tuple[int, ...],
    ) -> None:
        super().__init__(dim, grid)
        self.trained = self.grid if trained is None else (trained,) * len(grid)
        self.expand, self.reduce = Dense(len(grid), hidden), Dense(hidden, dim, bias=False)
        self.register_buffer("coordinates", log_coordinates(self.grid, self.trained), persistent=False)

    def reset_derived(self) -> None:
        super().reset_derived()
        like = self.expand.weight
        self.coordinates = log_coordinates(self.grid, self.trained).to(like.device, like.dtype)

    def rows(self, grid: tuple[int, ...]) -> Tensor:
        coordinates = self.coordinates
        if grid != self.grid:
            coordinates = log_coordinates(grid, self.trained).to(coordinates)
        return HIGHEST * self.reduce(F.relu(self.expand(coordinates))).sigmoid()
