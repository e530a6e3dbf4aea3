"""Large depthwise kernels with dilated small ones beside them in training (UniRepLKNet, arXiv 2311.15599)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...spec import NormSpec, Place, build
from ..affine import normed, set_bias
from ..convolution import depthwise_conv, over_grid
from ..mergeable import check_settled
from ..norms.batch import Batch
from ..part import Part
from .mixer import Mixer
from .squeeze_excite import SqueezeExcite

BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
    5: ((3, 1), (3, 2)),
}
"""Size of the large kernel -> (size, dilation) of those beside it (section 3.1), none of which reaches beyond it."""


class LargeKernel(Mixer):
    """norm(BN(conv_size(x)) + sum of BN(conv_k,dilated by r(x))), then squeeze and excitation by the ratio `squeeze`.

    All convolutions are depthwise, without bias. With `dilated` false there is the one of `size` alone, without a batch
    norm of its own; with `merged` alike, with a bias: the form that `reparameterize` leaves behind, and in which
    deployed files come (with `norm` null, which a fold puts into it). Without `squeeze` nothing looks at the whole map.
    """

    EXAMPLES = (
        {"size": 5},
        {"size": 3, "dilated": False, "squeeze": None},
        {"size": 5, "merged": True, "norm": None, "squeeze": None},
    )
    grids: tuple[int, ...] = (2,)

    def __init__(
        self,
        dim: int,
        *,
        size: Annotated[int, Field(gt=0)] = 13,
        dilated: bool = True,
        merged: bool = False,
        norm: NormSpec | None = "batch",
        squeeze: Annotated[float, Field(gt=0)] | None = 0.25,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        if size % 2 == 0:
            raise BadSpec(f"size is odd, got {size}")
        if dilated and not merged and size not in BRANCHES:
            known = ", ".join(map(str, sorted(BRANCHES)))
            raise BadSpec(f"there are dilated branches for the sizes {known}, not for {size}; set dilated to false")
        self.size = size
        self.conv = depthwise_conv(dim, size, 1, bias=merged)
        branches = BRANCHES[size] if dilated and not merged else ()
        self.conv_norm = Batch(dim) if branches else None
        self.branches = nn.ModuleList(Branch(dim, k, r) for k, r in branches) if branches else None
        self.norm = None if norm is None else build("norm", norm, dim, place=(place or Place("mixer")).at("norm"))
        self.squeeze = None if squeeze is None else SqueezeExcite(dim, ratio=squeeze)
        self._declare()

    def _declare(self) -> None:
        """Who reads, writes and stands beside whom, as it is now."""
        count = 0 if self.branches is None else len(self.branches)
        self.reads = ("conv", *(f"branches.{i}.conv" for i in range(count)))
        if self.branches is None:
            self.neighbours = (("conv", "norm"),)
        else:
            self.neighbours = (("conv", "conv_norm"),)
        last = "norm" if self.norm is not None else "conv"
        self.writes = () if self.squeeze is not None or (last == "conv" and count) else (last,)

    @property
    def branched(self) -> bool:
        """Whether there are branches to merge."""
        return self.branches is not None

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        y = over_grid(self.conv, x)
        y = y if self.conv_norm is None else self.conv_norm(y, ctx)
        if self.branches is not None:
            for branch in self.branches:
                y = y + branch(x, ctx)
        y = y if self.norm is None else self.norm(y, ctx)
        return y if self.squeeze is None else self.squeeze(y, ctx)

    @torch.no_grad()
    def kernel(self) -> tuple[Tensor, Tensor]:
        """The one kernel (C, 1, size, size) and bias (C,) that all branches together are in evaluation, float64."""
        weight, bias = normed(self.conv, self.conv_norm)
        for branch in self.branches or ():
            assert isinstance(branch, Branch)
            small, shift = normed(branch.conv, branch.norm)
            wide = spread(small, branch.conv.dilation[0])
            margin = (self.size - wide.shape[-1]) // 2
            weight, bias = weight + F.pad(wide, (margin,) * 4), bias + shift
        return weight, bias

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Put everything into the large kernel, which gains a bias; the block's norm and the squeeze stay."""
        if self.branches is None:
            return
        check_settled(self)
        weight, bias = self.kernel()
        self.conv.weight.copy_(weight)
        set_bias(self.conv, bias)
        self.conv_norm = self.branches = None
        self._declare()


class Branch(Part):
    """A small depthwise convolution of tokens `dilation` apart, and its batch norm."""

    neighbours = (("conv", "norm"),)

    def __init__(self, dim: int, size: int, dilation: int) -> None:
        super().__init__()
        self.conv = depthwise_conv(dim, size, dilation, bias=False)
        self.norm: Batch | None = Batch(dim)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        y = over_grid(self.conv, x)
        return y if self.norm is None else self.norm(y, ctx)


def spread(kernel: Tensor, dilation: int) -> Tensor:
    """(..., k, k) -> the dense kernel (..., n, n), n = dilation (k - 1) + 1, that does what the dilated one does."""
    side = dilation * (kernel.shape[-1] - 1) + 1
    wide = kernel.new_zeros(*kernel.shape[:-2], side, side)
    wide[..., ::dilation, ::dilation] = kernel
    return wide
