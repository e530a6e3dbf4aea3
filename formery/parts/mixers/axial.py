"""A mixer along some axes of the grid only: divided space and time (TimeSformer, arXiv 2102.05095)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context, State
from ...errors import BadSpec, CannotRun
from ...spec import MixerSpec, Place, build
from .grids import check_grid, on_grid
from .mixer import Mixer


class Axial(Mixer):
    """`mixer` over the `axes` of a map or a video, for every place of the other axes alone.

    Axes count from 0: [0] is a video's time, [1, 2] its space, [1] a map's rows. With `zero_init` the linears that read
    begin at zero and the weights of those that write at one, so that the mixer adds nothing at first and can learn all
    the same (UniFormer's release, for attention along time).
    """

    EXAMPLES = (
        {"mixer": {"kind": "attention", "heads": 2}, "axes": [0]},
        {"mixer": {"kind": "attention", "heads": 2}, "axes": [1], "zero_init": True},
        {"mixer": {"kind": "separable_conv", "size": 3}, "axes": [1, 2]},
    )
    grids: tuple[int, ...] = (2, 3)

    def __init__(
        self,
        dim: int,
        *,
        mixer: MixerSpec,
        axes: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)],
        zero_init: bool = False,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("axial", grid=(1, 1, 1))
        rank = len(place.grid)
        if rank not in (2, 3) or max(axes) >= rank or sorted(set(axes)) != axes:
            raise BadSpec(f"axes are some of a map's or a video's in order, got {axes}; here the grid is {rank}-D")
        self.grids, self.axes = (rank,), axes
        inside = tuple(place.grid[axis] for axis in axes)
        self.mixer: Mixer = build("mixer", mixer, dim, place=place.at("mixer", grid=inside))
        check_grid(self.mixer, len(axes), mixer if isinstance(mixer, str) else mixer["kind"])
        self.zero_init = zero_init
        self.fixed_grid, self.looks_at_batch = self.mixer.fixed_grid, self.mixer.looks_at_batch
        self.exports, self.surrogate = self.mixer.exports, self.mixer.surrogate
        self.partial = self.mixer.partial
        self.reads, self.writes = (tuple(f"mixer.{n}" for n in ns) for ns in (self.mixer.reads, self.mixer.writes))
        self.neighbours = tuple((f"mixer.{a}", f"mixer.{b}") for a, b in self.mixer.neighbours)
        if zero_init and not all(isinstance(self.get_submodule(n), nn.Linear) for n in (*self.reads, *self.writes)):
            raise BadSpec("zero_init is for mixers that read and write by linears alone, as attention; leave it out")
        self.first_values()

    @torch.no_grad()
    def first_values(self) -> None:
        if not self.zero_init:
            return
        for names, value in ((self.reads, 0.0), (self.writes, 1.0)):
            for name in names:
                linear = self.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                linear.weight.fill_(value)
                if linear.bias is not None:
                    linear.bias.zero_()

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        if state is not None:
            raise CannotRun("axial does not stream; its mixer alone may")
        others = [axis for axis in range(self.grids[0]) if axis not in self.axes]
        order = [0, *(1 + axis for axis in others), *(1 + axis for axis in self.axes), x.dim() - 1]
        back = [order.index(axis) for axis in range(x.dim())]
        lines = x.permute(order)
        outer = len(others) + 1
        inner = ctx.but(causal=False, grid=(), prefix=0, positions=None, padding=None, key_padding=None, memo=None)
        mixed = on_grid(self.mixer, lines.flatten(0, outer - 1), inner, None)
        return mixed.unflatten(0, lines.shape[:outer]).permute(back)
