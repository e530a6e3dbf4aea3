"""Vectors of numbers, one a step: observations, spectra, sensors."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...context import Context
from ...errors import BadSpec, CannotRun
from ..dense import Dense
from .stem import Stem


class Frames(Stem):
    """A dense layer from `in_chans` numbers a step (the width unless given) to the width, or with `project` false the
    numbers themselves. (B, L, in_chans) in; `length` is the nominal number of steps, 0 where any is as good.
    """

    EXAMPLES = ({"dim": 8, "in_chans": 5}, {"dim": 8, "bias": False, "length": 16})
    modality = "series"
    channels: int

    def __init__(
        self,
        *,
        dim: Annotated[int, Field(gt=0)],
        in_chans: Annotated[int, Field(gt=0)] | None = None,
        project: bool = True,
        bias: bool = True,
        length: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__()
        if not project and in_chans not in (None, dim):
            raise BadSpec(f"without a projection in_chans ({in_chans}) is the width {dim}; set project to true")
        self.dim, self.grid, self.channels = dim, (length,), in_chans or dim
        self.project = Dense(in_chans or dim, dim, bias=bias) if project else None
        self.writes = ("project",) if project else ()

    def forward(self, inputs: Tensor, ctx: Context) -> tuple[Tensor, Context]:
        check_frames(inputs, self.channels)
        return inputs if self.project is None else self.project(inputs), ctx


def check_frames(inputs: Tensor, channels: int) -> None:
    """CannotRun unless these are frames (B, L, channels) of floating point numbers."""
    if inputs.dim() != 3 or inputs.shape[2] != channels:
        raise CannotRun(f"series are (batch, length, {channels}), got {tuple(inputs.shape)}; reorder or set in_chans")
    if not inputs.is_floating_point() or inputs.dtype == torch.complex64:
        raise CannotRun(f"series are floating point numbers, got {inputs.dtype}; convert them first")
