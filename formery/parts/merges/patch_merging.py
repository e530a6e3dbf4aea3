"""Patch merging: 2 x 2 neighbours side by side, norm, dense (Swin, arXiv 2103.14030, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context
from ...spec import NormSpec, Place, build
from ..dense import Dense
from .merge import Merge


class PatchMerging(Merge):
    """Four neighbours' channels concatenated, column by column, normed, reduced; odd maps are padded with zeros.

    Swin V2 norms behind the reduction (`out_norm`) instead.
    """

    EXAMPLES = ({}, {"norm": None, "bias": True}, {"norm": None, "out_norm": "layer"})

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        norm: NormSpec | None = "layer",
        out_norm: NormSpec | None = None,
        bias: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        self.norm = None if norm is None else build("norm", norm, 4 * dim, place=place.at("norm"))
        self.reduce = Dense(4 * dim, out, bias=bias)
        self.out_norm = None if out_norm is None else build("norm", out_norm, out, place=place.at("out_norm"))
        self.reads = ("reduce",) if norm is None else ("norm",)
        self.writes = ("reduce",) if out_norm is None else ("out_norm",)
        self.neighbours = (("norm", "reduce"),) if norm is not None else ()
        self.neighbours += (("reduce", "out_norm"),) if out_norm is not None else ()

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple((n + 1) // 2 for n in grid)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = torch.cat(corners, dim=-1)
        x = self.reduce(x if self.norm is None else self.norm(x, ctx))
        return x if self.out_norm is None else self.out_norm(x, ctx)
