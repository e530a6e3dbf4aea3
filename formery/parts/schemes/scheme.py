"""What every residual scheme is, and the layer scale and stochastic depth that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import Context
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..part import Part, untouched

Sublayer = Callable[[Tensor], Tensor]


class LayerScale(nn.Module):
    """A learned factor a channel (CaiT, arXiv 2103.17239)."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def at(modules: nn.ModuleList, index: int) -> nn.Module:
    """modules[index] in a third of the time: no check of the index."""
    module = modules._modules[str(index)]
    assert module is not None
    return module


def widths(dim: int | Sequence[int], num_sublayers: int) -> list[int]:
    """The width of each sublayer."""
    return [dim] * num_sublayers if isinstance(dim, int) else list(dim)


def check_numbers(name: str, numbers: Sequence[int] | None, num_sublayers: int) -> None:
    """BadSpec unless these are numbers of sublayers of a block that has so many."""
    for number in numbers or ():
        if not 0 <= number < num_sublayers:
            raise BadSpec(f"{name}: this block has sublayers 0 to {num_sublayers - 1}, got {number}")


class Scheme(Part):
    """Wires the sublayers of one block to the residual stream.

    `start(x) -> stream`, `step(stream, index, sublayer, ctx) -> stream` once a sublayer, `finish(stream) -> x`. The
    stream passes from block to block, so that a scheme may reach across them; it is a tensor, or a tuple of tensors.
    `norms[i]` belongs to sublayer i, `scales[i]` is its layer scale where `scale` gives an initial value, and
    `drop_path` the chance that a branch is left out for an item in training (arXiv 1603.09382). Sublayers numbered in
    `bare` do without all three, those in `unnormed` without a norm. `drop_shares` are factors of `drop_path`, one for
    each sublayer. `dim` is the width of all sublayers, or has one width for each.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"norm": "rms", "scale": 0.1},
        {"scale": 0.1, "bare": [0]},
        {"unnormed": [0]},
    )
    norms_at: ClassVar[Literal["in", "out", "sum"] | None] = None
    """Where the norms stand: in front of sublayers, on their output, on the sum with the stream; None (not said) keeps
    rewrites away."""
    separable: ClassVar[bool] = True
    """Whether each sublayer is a residual branch of its own."""
    only_adds: ClassVar[bool] = True
    """Whether the stream is changed by adding the sublayers' outputs alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A scheme that steps in a way of its own says anew where its norms stand."""
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls) and "norms_at" not in vars(cls):
            cls.norms_at, cls.separable = None, False

    def __init__(
        self,
        dim: int | Sequence[int],
        num_sublayers: int,
        *,
        norm: NormSpec | None = "layer",
        scale: float | None = None,
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bare: list[int] | None = None,
        unnormed: list[int] | None = None,
        drop_shares: list[Annotated[float, Field(ge=0, le=1)]] | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("scheme")
        self.drop_path, self.bare = drop_path, frozenset(bare or ())
        self.drop_shares = None if drop_shares is None else tuple(drop_shares)
        check_numbers("bare", bare, num_sublayers)
        check_numbers("unnormed", unnormed, num_sublayers)
        if drop_shares is not None and len(drop_shares) != num_sublayers:
            raise BadSpec(f"drop_shares: one for each of the {num_sublayers} sublayers, got {len(drop_shares)}")
        dims, without = widths(dim, num_sublayers), self.bare.union(unnormed or ())
        norms = [None if i in without else norm for i in range(num_sublayers)]
        scales = [None if i in self.bare else scale for i in range(num_sublayers)]
        self.norms = nn.ModuleList(self._norm(dims[i], i, own, place) for i, own in enumerate(norms))
        self.scales = nn.ModuleList(self._scale(dims[i], i, num_sublayers, own) for i, own in enumerate(scales))

    def _norm(self, dim: int, index: int, norm: Any, place: Place) -> nn.Module:
        return nn.Identity() if norm is None else build("norm", norm, dim, place=place.at("norm"))

    def _scale(self, dim: int, index: int, num_sublayers: int, scale: float | None) -> nn.Module:
        return nn.Identity() if scale is None else LayerScale(dim, scale)

    def normed(self, index: int, x: Tensor, ctx: Context) -> Tensor:
        """The norm of sublayer `index`."""
        norm = at(self.norms, index)
        return x if isinstance(norm, nn.Identity) else norm(x, ctx)

    def drops(self, index: int) -> float:
        """The chance that the branch of sublayer `index` is left out now."""
        if not self.training or self.drop_path <= 0 or index in self.bare:
            return 0.0
        return self.drop_path * (1.0 if self.drop_shares is None else self.drop_shares[index])

    def branch(self, index: int, y: Tensor) -> Tensor:
        """Layer scale and stochastic depth of what is to be added."""
        y = self.scales[index](y)
        if chance := self.drops(index):
            keep = 1 - chance
            mask = y.new_empty(y.shape[0], *(1,) * (y.dim() - 1)).bernoulli_(keep)
            y = y * (mask / keep)
        return y

    def added(self, index: int, stream: Tensor, y: Tensor) -> Tensor:
        """The stream with the branch added; layer scale and sum are one pass over memory where nothing is dropped."""
        if not self.drops(index):
            scale = at(self.scales, index)
            if untouched(scale, nn.Identity):
                return stream + y
            if untouched(scale, LayerScale):
                return torch.addcmul(stream, y, scale.weight)
        return stream + self.branch(index, y)

    def start(self, x: Tensor) -> Any:
        """The stream that begins with tokens x."""
        return x

    def step(self, stream: Any, index: int, sublayer: Sublayer, ctx: Context) -> Any:
        """The stream after sublayer `index`."""
        raise NotImplementedError

    def skip(self, stream: Any) -> Any:
        """The stream after a sublayer that was taken away: as if it had added nothing."""
        return stream

    def finish(self, stream: Any) -> Tensor:
        """The tokens of a stream."""
        return stream
