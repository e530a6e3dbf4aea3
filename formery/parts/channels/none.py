"""No channel mixing: the baseline of ablations (MetaFormer, arXiv 2111.11418, table 5)."""

from __future__ import annotations

from torch import Tensor

from ...context import NOTHING, Context, State
from .channel import Channel


class Nothing(Channel):
    """Returns its input."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return x
