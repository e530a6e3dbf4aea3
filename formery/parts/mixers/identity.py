"""No mixing: the baseline of MetaFormer's ablation (arXiv 2111.11418, table 5)."""

from __future__ import annotations

from torch import Tensor

from ...context import NOTHING, Context, State
from .mixer import Mixer


class Identity(Mixer):
    """Returns its input."""

    causal, streams, packs = "always", "any", True

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return x
