"""LMUFormer's convolutional embeddings of a series (arXiv 2402.04882, figure 2), which hear a few frames ahead.

A convolution of `size` frames is centred, so that a token waits for (size - 1) / 2 frames behind its own in each layer:
`delay` frames altogether. `step` hears a series piece by piece and gives each token once its frames are there; what it
gives is what `forward` gives for the whole, the zeros beyond both ends included.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context, Slot, State
from ...errors import BadSpec, CannotRun
from ...ops.temporal_convolution import temporal_convolution
from ..mixers.spiking import Fires, Neurons
from ..norms.batch import Batch
from .frames import check_frames
from .stem import Stem


class LookingAhead(Stem):
    """A stem of centred convolutions, `convs` one after another and `relative` beside a residual connection."""

    modality = "series"
    channels: int
    delay: int
    """Frames behind a token's own that it depends on."""
    convs: nn.ModuleList
    relative: nn.Conv1d

    def _convolutions(self, dim: int, in_chans: int, depth: int, size: int, length: int) -> None:
        if size % 2 == 0:
            raise BadSpec(f"size is odd, so that a convolution has a middle, got {size}")
        self.dim, self.grid, self.channels = dim, (length,), in_chans
        self.pad = size // 2
        self.delay = self.pad * (depth + 1)
        self.convs = nn.ModuleList(nn.Conv1d(dim if i else in_chans, dim, size, bias=False) for i in range(depth))
        self.relative = nn.Conv1d(dim, dim, size, bias=False)

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_frames(inputs, self.channels)
        if ctx.causal:
            raise CannotRun("this stem hears later frames, so no causal head can stand on it; use 'frames'")
        if ctx.padding is not None or ctx.bounds is not None:
            raise CannotRun("this stem cannot tell padding or packed series apart; give rows of one length")
        return self._heard(inputs, None, last=True), ctx

    def step(self, frames: Tensor, state: State, *, last: bool = False) -> Tensor:
        """Tokens (B, n, dim) that these next frames (B, L, in_chans) complete; with `last`, all that are left."""
        check_frames(frames, self.channels)
        return self._heard(frames, state, last=last)

    def _heard(self, x: Tensor, state: State | None, *, last: bool) -> Tensor:
        raise NotImplementedError

    def new_state(self, batch: int) -> State:
        """What `step` carries: inputs of each convolution, tokens that wait for theirs."""
        weight = self.relative.weight
        convs = {f"conv{i}": conv for i, conv in enumerate(self.convs)} | {"relative": self.relative}
        tails = {name: Slot(weight.new_zeros(batch, self.pad, *_width(conv))) for name, conv in convs.items()}
        return State(waiting=Slot(weight.new_zeros(batch, 0, self.dim)), **tails)

    def _centred(self, conv: nn.Module, x: Tensor, state: State | None, name: str, last: bool) -> Tensor:
        """A convolution of the frames so far, late by what it waits for."""
        assert isinstance(conv, nn.Conv1d)
        tail = x.new_zeros(x.shape[0], self.pad, x.shape[2]) if state is None else state.slot(name).value
        if last:
            x = F.pad(x, (0, 0, 0, self.pad))
        y, tail = temporal_convolution(x, conv.weight, conv.bias, tail)
        if state is not None:
            state.entries[name] = Slot(tail)
        return y

    def _waited(self, x: Tensor, num: int, state: State | None) -> Tensor:
        """The first `num` of the tokens that wait for their place relative to later ones, these ones the last."""
        if state is None:
            return x
        x = torch.cat([state.slot("waiting").value.to(x.dtype), x], dim=1)
        state.entries["waiting"] = Slot(x[:, num:].clone())
        return x[:, :num]


def _width(conv: nn.Module) -> tuple[int]:
    assert isinstance(conv, nn.Conv1d)
    return (conv.in_channels,)


class FrameConvolutions(LookingAhead):
    """`layers` times convolution, ReLU and batch norm; then the tokens plus a convolution of them."""

    EXAMPLES = ({"dim": 8, "in_chans": 5}, {"dim": 8, "in_chans": 5, "layers": 1, "size": 5})
    looks_at_batch = True

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        in_chans: Annotated[int, Field(gt=0)] = 128,
        layers: Annotated[int, Field(gt=0)] = 4,
        size: Annotated[int, Field(gt=0)] = 3,
        length: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self._convolutions(dim, in_chans, layers, size, length)
        self.norms = nn.ModuleList(Batch(dim) for _ in range(layers))

    def _heard(self, x: Tensor, state: State | None, *, last: bool) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(F.relu(self._centred(conv, x, state, f"conv{i}", last)))
        y = self._centred(self.relative, x, state, "relative", last)
        return self._waited(x, y.shape[1], state) + y


class SpikingConvolutions(LookingAhead):
    """`layers` convolutions with firing neurons between them; then the tokens plus a convolution of them.

    Neurons stand in front of all convolutions but the first, or behind all of them.
    """

    EXAMPLES = (
        {"dim": 8, "in_chans": 5, "layers": 2, "threshold": 0.2},
        {"dim": 8, "in_chans": 5, "layers": 2, "fires": "after", "threshold": 0.2},
    )
    looks_at_batch = surrogate = True

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        in_chans: Annotated[int, Field(gt=0)] = 128,
        layers: Annotated[int, Field(gt=0)] = 4,
        size: Annotated[int, Field(gt=0)] = 3,
        fires: Fires = "before",
        threshold: float = 1.0,
        tau: Annotated[float, Field(ge=1)] = 2.0,
        length: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        self._convolutions(dim, in_chans, layers, size, length)
        self.fires_before = fires == "before"
        self.neurons = nn.ModuleList(Neurons(dim, threshold, tau) for _ in range(layers + (fires == "after")))

    def new_state(self, batch: int) -> State:
        state = super().new_state(batch)
        for i, layer in enumerate(self.neurons):
            assert isinstance(layer, Neurons)
            state.entries[f"neurons{i}"] = layer.new_state(batch)
        return state

    def _heard(self, x: Tensor, state: State | None, *, last: bool) -> Tensor:
        depth = len(self.convs)
        for i, conv in enumerate(self.convs):
            if self.fires_before and i:
                x = self.neurons[i - 1](x, state, None, f"neurons{i - 1}")
            x = self._centred(conv, x, state, f"conv{i}", last)
            if not self.fires_before:
                x = self.neurons[i](x, state, None, f"neurons{i}")
        if self.fires_before:
            y = self.neurons[depth - 1](x, state, None, f"neurons{depth - 1}")
            y = self._centred(self.relative, y, state, "relative", last)
        else:
            y = self._centred(self.relative, x, state, "relative", last)
            y = self.neurons[depth](y, state, None, f"neurons{depth}")
        return self._waited(x, y.shape[1], state) + y
