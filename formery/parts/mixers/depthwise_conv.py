"""Depthwise convolution as a token mixer, over maps and videos or along sequences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, Slot, State
from ...errors import BadSpec, CannotRun
from ..convolution import CONVOLUTIONS, convolution, over_grid
from .mixer import Causality, Mixer, Splits
from .ragged import by_sequence, compacted, last_tokens


class DepthwiseConv(Mixer):
    """Each channel convolved alone with a kernel of `size` on every axis (ConvNeXt, arXiv 2201.03545: 7 x 7).

    `axes` is the rank of the grid: 3 for videos, 2 for maps, 1 for sequences. A sequence's kernel looks at both sides,
    or, where the context is causal, only back; the two have different weights in effect, so a model uses one of them
    throughout.
    """

    EXAMPLES = ({"size": 3}, {"size": 4, "axes": 1, "bias": False})
    grids: tuple[int, ...] = (1, 2, 3)
    causal: Causality = "on request"
    streams: Splits = "any"
    packs = True
    reads, writes = ("conv",), ("conv",)

    def __init__(
        self, dim: int, *, size: int = 7, axes: int | None = None, bias: bool = True, grid: tuple[int, ...]
    ) -> None:
        super().__init__()
        axes = axes or max(1, len(grid))
        if axes not in CONVOLUTIONS:
            raise BadSpec(f"axes is 1 (sequences), 2 (maps) or 3 (videos), got {axes}")
        if size < 1 or (axes > 1 and size % 2 == 0):
            raise BadSpec(f"size is a positive number, odd on maps and videos, got {size}")
        self.size, self.grids = size, (axes,)
        if axes > 1:
            self.causal, self.streams, self.packs = "never", "no", False
        self.conv = convolution(axes, dim, dim, size, padding=size // 2 if axes > 1 else 0, groups=dim, bias=bias)

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        if self.grids != (1,):
            if state is not None:
                raise CannotRun("depthwise_conv over maps and videos does not stream; use axes 1 for sequences")
            return over_grid(self.conv, x)
        if ctx.bounds is not None:
            return by_sequence(self, x, ctx)
        lengths, undo = None, None
        if ctx.padding is not None:
            x, lengths, undo = compacted(x, ctx.padding)
        if ctx.causal or state is not None:
            past = x.new_zeros(x.shape[0], self.size - 1, x.shape[2]) if state is None else state.slot("tail").value
            inputs = torch.cat([past.to(x.dtype), x], dim=1).mT
            if state is not None:
                state.slot("tail").put(last_tokens(past, x, lengths))
        else:
            inputs = F.pad(x.mT, ((self.size - 1) // 2, self.size // 2))
        y = self.conv(inputs).mT
        return y if undo is None else undo(y)

    def new_state(self, batch: int, capacity: int) -> State | None:
        if self.streams == "no":
            return None
        weight = self.conv.weight
        return State(tail=Slot(weight.new_zeros(batch, self.size - 1, weight.shape[0])))
