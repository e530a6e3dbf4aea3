"""A temporal convolution network: dilated convolutions whose reach grows as a power of their number (arXiv 1803.01271;
as TCNCA uses it, arXiv 2312.05605)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, Slot, State
from ...errors import BadSpec
from ...ops.temporal_convolution import receptive_field, temporal_convolution
from ...spec import NormSpec, Place, build
from ..activations import ACTIVATIONS, Activation
from .mixer import Causality, Mixer, Splits
from .ragged import along_rows, last_tokens, real


class TemporalConvolution(Mixer):
    """`layers` residual layers x + f(norm(convolution of x)), the i-th with `width` taps `factor`^i tokens apart.

    A token sees `reach` = 1 + (width - 1)(factor^layers - 1) / (factor - 1) tokens, itself included: those before it,
    or, `centred`, as many on either side. `groups` divides the channels (one each unless given).
    """

    EXAMPLES = (
        {"width": 3, "layers": 3},
        {"width": 2, "factor": 3, "layers": 2, "groups": 4, "norm": "rms", "activation": "relu"},
        {"width": 3, "layers": 2, "centred": True},
    )
    unseen = ("factor", "activation")
    grids = (1,)
    packs = True
    causal: Causality = "always"
    streams: Splits = "any"

    def __init__(
        self,
        dim: int,
        *,
        width: Annotated[int, Field(gt=0)] = 5,
        factor: Annotated[int, Field(gt=0)] = 2,
        layers: Annotated[int, Field(gt=0)] = 4,
        groups: Annotated[int, Field(gt=0)] | None = None,
        norm: NormSpec | None = None,
        activation: Activation = "silu",
        centred: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        at = place or Place("temporal_convolution")
        groups = dim if groups is None else groups
        if dim % groups:
            raise BadSpec(f"groups ({groups}) divides the width {dim}")
        if centred and width % 2 == 0:
            raise BadSpec(f"centred convolutions have a middle tap: width is odd, got {width}")
        self.dim, self.width, self.groups, self.activation = dim, width, groups, activation
        self.dilations = [factor**i for i in range(layers)]
        self.reach = receptive_field(width, self.dilations)
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, width, dilation=dilation, groups=groups) for dilation in self.dilations
        )
        norms = (
            nn.Identity() if norm is None else build("norm", norm, dim, place=at.at("norm")) for _ in range(layers)
        )
        self.norms = nn.ModuleList(norms)
        self.looks_at_batch = any(getattr(norm, "looks_at_batch", False) for norm in self.norms)
        self.centred = centred
        if centred:
            self.causal, self.streams = "never", "no"

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        return along_rows(self._rows, x, ctx, state)

    def _rows(self, x: Tensor, ctx: Context, state: State | None, lengths: Tensor | None) -> Tensor:
        """Rows (B, L, C) of which the first `lengths` (B,) tokens count."""
        counts = None if lengths is None else real(x, lengths)[..., None]
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = ACTIVATIONS[self.activation](norm(self._convolved(i, conv, x, state, lengths)))
            x = x + y
            if counts is not None:  # what stands behind a row is nothing to a centred convolution
                x = x * counts
        return x

    def _convolved(self, i: int, conv: nn.Module, x: Tensor, state: State | None, lengths: Tensor | None) -> Tensor:
        assert isinstance(conv, nn.Conv1d)
        dilation = self.dilations[i]
        more = {"dilation": dilation, "groups": self.groups}
        if self.centred:
            half = (self.width - 1) * dilation // 2
            ahead = F.pad(x, (0, 0, 0, half))
            return temporal_convolution(ahead, conv.weight, conv.bias, x.new_zeros(x.shape[0], half, self.dim), **more)[
                0
            ]
        if state is None:
            return temporal_convolution(x, conv.weight, conv.bias, **more)[0]
        slot = state.slot(f"tail{i}")
        past = slot.value
        y, tail = temporal_convolution(x, conv.weight, conv.bias, past, **more)
        slot.put(tail if lengths is None else last_tokens(past, x, lengths))
        return y

    def new_state(self, batch: int, capacity: int) -> State | None:
        if self.centred:
            return None
        weight = next(self.parameters())
        sizes = {f"tail{i}": (self.width - 1) * dilation for i, dilation in enumerate(self.dilations)}
        return State(**{name: Slot(weight.new_zeros(batch, size, self.dim)) for name, size in sizes.items()})
