"""What every block is: named sublayers, stepped along the residual stream by a scheme."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ...context import NOTHING, Context, State
from ...parts.mixers.grids import check_grid, on_grid
from ...parts.mixers.mixer import Mixer
from ...parts.part import Part
from ...spec import Place, build

WATCH = "watch"
"""Entry of `ctx.record`: a function called after every sublayer, with the block, the sublayer's name and the residual
stream before and after it."""

WATCH_WHOLE = "watch whole"
"""Entry of `ctx.record`: a function that bodies whose sublayers work on other tokens than pass from block to block call
after every block, with the block and these tokens before and after it."""


class BaseBlock(Part):
    """Sublayers by name in order; the scheme's norms and scales have the same order."""

    scheme: Any
    dim: int
    """Width of the tokens that go out; most blocks keep that of those that come in."""

    def wire(
        self,
        dim: int,
        sublayers: dict[str, tuple[str, Any]],
        scheme: Any,
        place: Place,
        widths: tuple[int, ...] | None = None,
    ) -> None:
        """Build `{name: (role, spec)}` and the scheme around them, all of width `dim`, or each of its own."""
        widths = widths or (dim,) * len(sublayers)
        self.dim, self.keeps_width = widths[-1], len(set(widths)) == 1
        for (name, (role, spec)), width in zip(sublayers.items(), widths, strict=True):
            part = build(role, spec, width, place=place.at(name))
            if isinstance(part, Mixer):
                check_grid(part, len(place.grid), name if isinstance(spec, str) else spec["kind"])
            self.hang(name, part)
        self.names = tuple(sublayers)
        given = dim if self.keeps_width else widths
        self.scheme = build("scheme", scheme, given, len(sublayers), place=place.at("scheme"))

    def hang(self, name: str, part: nn.Module | None) -> None:
        """Put a sublayer where its dotted name says; None takes its work away and leaves its place in the order."""
        setattr(self, name, part)

    def steps(self) -> Iterator[tuple[int, str, nn.Module]]:
        """(place in the order, name, module) of the sublayers that are there."""
        for index, name in enumerate(self.names):
            part = self._sublayer(name)
            if part is not None:
                yield index, name, part

    def _sublayer(self, name: str) -> nn.Module | None:
        """The sublayer of that name; None where its work was taken away."""
        part: nn.Module | None = getattr(self, name, None)
        return part

    def forward(self, stream: Any, ctx: Context = NOTHING, state: State | None = None) -> Any:
        for index in range(len(self.names)):
            stream = self.step(stream, index, ctx, state)
        return stream

    def step(self, stream: Any, index: int, ctx: Context, state: State | None) -> Any:
        """The stream after sublayer `index`."""
        name = self.names[index]
        part = self._sublayer(name)
        if part is None:
            return self.scheme.skip(stream)
        after = self.scheme.step(stream, index, _Sublayer(part, name, ctx, state), ctx)
        watch = None if ctx.record is None else ctx.record.get(WATCH)
        if watch is not None:
            watch(self, name, self.scheme.finish(stream), self.scheme.finish(after))
        return after


class _Sublayer:
    """A sublayer with its context and state bound: tokens to what is to be added."""

    __slots__ = ("ctx", "name", "part", "state")

    def __init__(self, part: nn.Module, name: str, ctx: Context, state: State | None) -> None:
        self.part, self.name, self.ctx, self.state = part, name, ctx, state

    def __call__(self, x: Tensor) -> Tensor:
        state = None if self.state is None else self.state.under(self.name)
        if isinstance(self.part, Mixer):
            return on_grid(self.part, x, self.ctx, state)
        y: Tensor = self.part(x, self.ctx, state)
        return y
