"""A strided convolution between stages."""

from __future__ import annotations

from torch import Tensor

from ...context import NOTHING, Context
from ...spec import NormSpec, Place, build
from ..convolution import convolution, over_grid
from ..strides import Natural, Positive, as_stride, per_axis
from .merge import Merge


class ConvMerge(Merge):
    """A convolution of `size` with `stride` and `padding`, a `norm` before and an `out_norm` behind it where given.

    Each of the three is a number for all axes of a map or a video, or one an axis. PoolFormer: 3, 2, 1 without norms;
    ConvNeXt: 2, 2, 0 after a norm; EfficientFormer: 3, 2, 1 before a batch norm; UniFormer on videos: [1, 2, 2],
    [1, 2, 2], 0 before a layer norm.
    """

    EXAMPLES = (
        {},
        {"size": 2, "padding": 0, "norm": "layer"},
        {"out_norm": "batch", "bias": False},
        {"size": [3, 2, 2], "stride": [1, 2, 2], "padding": [1, 0, 0]},
    )
    unseen = ("stride", "padding")
    grids: tuple[int, ...] = (2, 3)

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        size: Positive | list[Positive] = 3,
        stride: Positive | list[Positive] = 2,
        padding: Natural | list[Natural] = 1,
        norm: NormSpec | None = None,
        out_norm: NormSpec | None = None,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("merge")
        rank = len(place.grid) if len(place.grid) in (2, 3) else 2
        given = {"size": size, "stride": stride, "padding": padding}
        self.size, self.strides, self.padding = (per_axis(value, rank, name) for name, value in given.items())
        self.grids, self.stride = (rank,), as_stride(self.strides)
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.conv = convolution(rank, dim, out, self.size, self.strides, self.padding, bias=bias)
        self.out_norm = None if out_norm is None else build("norm", out_norm, out, place=place.at("out_norm"))
        self.reads = ("conv",) if norm is None else ("norm",)
        self.writes = ("conv",) if out_norm is None else ("out_norm",)
        self.neighbours = (("norm", "conv"),) if norm is not None else ()
        self.neighbours += (("conv", "out_norm"),) if out_norm is not None else ()

    def new_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        axes = zip(grid, self.size, self.strides, self.padding, strict=True)
        return tuple(max(1, (n + 2 * padding - size) // stride + 1) for n, size, stride, padding in axes)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        x = x if self.norm is None else self.norm(x, ctx)
        x = over_grid(self.conv, x)
        return x if self.out_norm is None else self.out_norm(x, ctx)
