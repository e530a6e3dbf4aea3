"""Sequence mixers over maps, in a declared order or several (cross-scan: VMamba, arXiv 2401.10166)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...context import NOTHING, Context, State
from ...errors import BadSpec, CannotRun
from ...spec import MixerSpec, Place, build
from .mixer import Causality, Growth, Mixer, Splits

Order = Literal["raster", "serpentine", "bidirectional", "cross"]


def _reversed(x: Tensor) -> Tensor:
    return x.flip(tuple(range(1, x.dim() - 1)))


def _transposed(x: Tensor) -> Tensor:
    """The axes of the grid the other way round: raster order then runs along what was the first of them."""
    axes = range(1, x.dim() - 1)
    return x.permute(0, *reversed(axes), x.dim() - 1)


def _folded(x: Tensor, axis: int) -> Tensor:
    """At every other place along `axis`, all axes behind it the other way round."""
    later = tuple(range(axis + 1, x.dim() - 1))
    odd = torch.arange(x.shape[axis], device=x.device) % 2 == 1
    return torch.where(odd.view(-1, *(1,) * (x.dim() - 1 - axis)), x.flip(later), x)


def _serpentine(x: Tensor) -> Tensor:
    """Every other row backwards, and in three dimensions every other such plane: each token follows a neighbour."""
    for axis in range(x.dim() - 3, 0, -1):
        x = _folded(x, axis)
    return x


def _unfolded(x: Tensor) -> Tensor:
    for axis in range(1, x.dim() - 2):
        x = _folded(x, axis)
    return x


@dataclass(frozen=True)
class Direction:
    """How a map (B, *grid, C) is laid so that raster order reads it in this direction, and how that is undone."""

    lay: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


FORWARD = Direction(lambda x: x, lambda x: x)
BACKWARD = Direction(_reversed, _reversed)
SERPENTINE = Direction(_serpentine, _unfolded)
ACROSS = Direction(_transposed, _transposed)
ACROSS_BACKWARD = Direction(lambda x: _reversed(_transposed(x)), lambda x: _transposed(_reversed(x)))
ORDERS: dict[str, tuple[Direction, ...]] = {
    "raster": (FORWARD,),
    "serpentine": (SERPENTINE,),
    "bidirectional": (FORWARD, BACKWARD),
    "cross": (FORWARD, BACKWARD, ACROSS, ACROSS_BACKWARD),
}
OF_MAPS = ("serpentine", "cross")
"""Orders that say nothing new of a sequence."""


class Scan(Mixer):
    """A sequence mixer that reads a grid in an `order`, in each of its directions causally.

    raster: row by row; serpentine: rows to and fro; bidirectional: raster and backwards; cross: those two along the
    last axis first, and two along the first axis first. The directions share one mixer if `tied`, else each has its own
    (`mixer` the first, `others` the rest), and their outputs are added (`join` sum) or averaged (mean). Prefix tokens
    stand in front in every direction (`prefix` first), or get nothing and are not seen (apart).
    """

    EXAMPLES = (
        {"mixer": {"kind": "gla", "heads": 2, "head_dim": 4, "value_dim": 4}, "order": "cross", "prefix": "apart"},
        {"mixer": {"kind": "hgrn"}, "order": "bidirectional", "tied": False, "join": "sum"},
        {"mixer": {"kind": "attention", "heads": 2}, "order": "serpentine"},
        {"mixer": {"kind": "depthwise_conv", "axes": 1, "size": 3}, "order": "cross"},
        {"mixer": {"kind": "hgrn"}, "order": "raster"},
    )
    unseen = ("order",)
    grids: tuple[int, ...] = (1, 2, 3)
    causal: Causality = "never"
    streams: Splits = "no"
    state_growth: Growth = "constant"

    def __init__(
        self,
        dim: int,
        *,
        mixer: MixerSpec,
        order: Order = "cross",
        tied: bool = True,
        join: Literal["mean", "sum"] = "mean",
        prefix: Literal["first", "apart"] = "first",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("scan")
        rank = len(place.grid)
        if order in OF_MAPS:
            if rank == 1:
                raise BadSpec(f"order {order!r} is one of maps, here the grid is 1-D; take raster or bidirectional")
            self.grids = (2, 3)
        self.order, self.join, self.prefix_apart = order, join, prefix == "apart"
        self.sees_prefix = not self.prefix_apart
        more = 0 if tied else len(self.directions) - 1
        self.mixer: Mixer = build("mixer", mixer, dim, place=place.at("mixer"))
        self.others = nn.ModuleList(build("mixer", mixer, dim, place=place.at("mixer")) for _ in range(more))
        if 1 not in self.mixer.grids or self.mixer.causal == "never":
            kind = mixer if isinstance(mixer, str) else mixer["kind"]
            raise BadSpec(f"a scan reads a sequence token by token, which mixer {kind!r} does not; take a causal one")
        self.fixed_grid, self.bounded = self.mixer.fixed_grid, self.mixer.bounded
        if order == "raster":
            self.causal, self.streams, self.state_growth = "always", self.mixer.streams, self.mixer.state_growth
        self.packs = self.mixer.packs and order not in OF_MAPS
        members = ["mixer", *(f"others.{i}" for i in range(more))]
        self.reads = tuple(f"{member}.{name}" for member in members for name in self.mixer.reads)
        self.writes = tuple(f"{member}.{name}" for member in members for name in self.mixer.writes)

    @property
    def directions(self) -> tuple[Direction, ...]:
        return ORDERS[self.order]

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        ctx = ctx.but(causal=True)
        if x.dim() == 3 and len(ctx.grid) > 1:
            front, grid = x[:, : ctx.prefix], ctx.grid
            maps = x[:, ctx.prefix :].unflatten(1, grid)
            y, seen = self._scanned(maps, front[:, :0] if self.prefix_apart else front, ctx.but(grid=(), prefix=0))
            return torch.cat([torch.zeros_like(front) if self.prefix_apart else seen, y.flatten(1, -2)], dim=1)
        if x.dim() > 3:
            return self._scanned(x, x.new_zeros(x.shape[0], 0, x.shape[-1]), ctx)[0]
        if 1 not in self.grids:
            raise CannotRun("this order is one of maps; give a map, or tokens with the grid that they stand on")
        if len(self.directions) == 1:
            return self.mixer(x, ctx, state)
        return self._joined([self._of(0)(x, ctx), self._of(1)(x.flip(1), _backwards(ctx, x.shape[1])).flip(1)])

    def _of(self, direction: int) -> Mixer:
        member = self.others[direction - 1] if direction and len(self.others) else self.mixer
        assert isinstance(member, Mixer)
        return member

    def _scanned(self, x: Tensor, front: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """x (B, *grid, C) and the tokens (B, P, C) in front of every direction, mixed."""
        count = front.shape[1]
        laid = [direction.lay(x) for direction in self.directions]
        rows = [torch.cat([front, m.flatten(1, -2)], dim=1) if count else m.flatten(1, -2) for m in laid]
        if len(self.others) or len(rows) == 1:
            mixed = [self._of(i)(row, ctx) for i, row in enumerate(rows)]
        else:  # one mixer for all: directions are rows of one batch
            mixed = list(self.mixer(torch.cat(rows), ctx.but(memo=None)).chunk(len(rows)))
        maps = [
            direction.undo(row[:, count:].unflatten(1, tuple(m.shape[1:-1])))
            for direction, row, m in zip(self.directions, mixed, laid, strict=True)
        ]
        return self._joined(maps), self._joined([row[:, :count] for row in mixed])

    def _joined(self, outputs: list[Tensor]) -> Tensor:
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total / len(outputs) if self.join == "mean" and len(outputs) > 1 else total

    def new_state(self, batch: int, capacity: int) -> State | None:
        return self.mixer.new_state(batch, capacity) if self.streams != "no" else None

    def macs(self, tokens: int, past: int = 0) -> int:
        return len(self.directions) * self.mixer.macs(tokens, past)


def _backwards(ctx: Context, length: int) -> Context:
    """What the context says of a sequence, said of it read from its end."""

    def flipped(entry: Any) -> Any:
        return None if entry is None else entry.flip(-1)

    bounds = None if ctx.bounds is None else (length - ctx.bounds).flip(0)
    padding, keys, places = (flipped(entry) for entry in (ctx.padding, ctx.key_padding, ctx.positions))
    return ctx.but(padding=padding, key_padding=keys, positions=places, bounds=bounds, memo=None)
