"""What every token mixer is."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ...context import NOTHING, Context, State
from ..part import Part

Causality = Literal["always", "on request", "never"]
Splits = Literal["any", "segments", "no"]
Growth = Literal["constant", "linear"]
CLASS_ROW = "class row"
"""Entry of `ctx.record`: attention puts there whom the first token looks at, (B, tokens), the mean over heads."""


class Mixer(Part):
    """Maps tokens (B, *grid, C) to tokens of the same shape, mixing over the grid."""

    grids: tuple[int, ...] = (1, 2, 3)
    """Ranks of the grids it takes: 1 text, 2 images, 3 video."""
    causal: Causality = "never"
    """Whether a token's output is independent of later tokens: always, where ctx.causal asks for it, never."""
    streams: Splits = "no"
    """Which splits of a sequence give the output of the whole: any, only its spec's own segments (so far of no mixer
    here; a model with such a one does not stream), none."""
    packs: bool = False
    """Whether packed sequences and padding (at either end of a row) leave real tokens' outputs as they are alone."""
    state_growth: Growth = "constant"
    """How the state of a stream grows with its tokens."""
    bounded: bool = False
    """Whether its forget gates stay above the context's lower bound."""
    fixed_grid: bool = False
    """Whether its parameters fit one grid only."""
    grouped: bool = False
    """Whether the grid that tensors inside it are bound to is that of a window, and not that of the whole map."""
    partial: bool = False
    """Whether some tokens get zeros instead of an output."""
    sees_prefix: bool = False
    """Whether it mixes prefix tokens in though it takes maps only; then it gets them flattened, with both in ctx."""

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        raise NotImplementedError

    def new_state(self, batch: int, capacity: int) -> State | None:
        """State of `batch` streams that have seen nothing, for up to `capacity` tokens each; None if it needs none."""
        return None

    def macs(self, tokens: int, past: int = 0) -> int:
        """Multiply-adds a batch item beyond those of its linears and convolutions, for `tokens` after `past` others."""
        return 0
