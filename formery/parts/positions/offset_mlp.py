"""A bias that a small network makes of offsets (CrossFormer, arXiv 2108.00154, section 3.2.2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..dense import Dense
from ..norms.layer import Layer
from .offset_bias import OffsetBias, offset_rows


class OffsetMLP(OffsetBias):
    """Offsets in steps through a dense layer to `hidden` channels, then three times norm, ReLU and dense layer, the
    last of them to one output a head.

    `hidden` is twice the heads unless given, a sixteenth of the width where heads have 32 channels. The network knows
    any group, so no tensor is bound to one.
    """

    EXAMPLES = ({}, {"hidden": 12})

    def __init__(self, dim: int, *, hidden: Annotated[int, Field(gt=0)] | None = None, grid: tuple[int, ...]) -> None:
        super().__init__(dim, grid)
        hidden = hidden or 2 * dim
        self.project = Dense(len(grid), hidden)
        self.norms = nn.ModuleList(Layer(hidden) for _ in range(3))
        self.layers = nn.ModuleList(Dense(hidden, width) for width in (hidden, hidden, dim))

    def rows(self, grid: tuple[int, ...]) -> Tensor:
        y = self.project(offset_rows(grid).to(self.project.weight))
        for norm, layer in zip(self.norms, self.layers, strict=True):
            y = layer(F.relu(norm(y)))
        return y
