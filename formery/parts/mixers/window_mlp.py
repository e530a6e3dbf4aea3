"""A matrix over the places of a window, one a head (Swin-MLP, in the code of arXiv 2103.14030)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import NOTHING, Context, State
from ...ops.token_groups import Cut, for_map, grid_of, merge, partition
from ...spec import Place
from ..attention_heads import heads_of
from ..part import Resize, untouched
from ..resize import resize_square, resize_vector
from .mixer import Mixer


def _resize_matrices(weight: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """The matrices (heads N, N, 1) of the window `old` at the window `new`, each resized alone."""
    return torch.cat([resize_square(m, old, new) for m in weight[:, :, 0].split(prod(old))])[:, :, None]


def _resize_biases(bias: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    return torch.cat([resize_vector(part, old, new) for part in bias.split(prod(old))])


class WindowMLP(Mixer):
    """Each head's N = `window`^2 tokens of a window times an N x N matrix with bias, the same for its channels.

    With `shift` the windows stand further by half a window: the map gets `window` - s rows and columns of zeros in
    front and s behind, s = `window` // 2, and they are cut off again. A map whose shorter side fits in one window is
    not shifted; the window of a smaller one shrinks. Maps that are no whole number of windows are filled with zeros.
    """

    EXAMPLES = ({"window": 2, "heads": 4}, {"window": 3, "shift": True, "head_dim": 8})
    unseen = ("window", "shift", "heads")
    grids: tuple[int, ...] = (2,)
    grouped = True

    def __init__(
        self,
        dim: int,
        *,
        window: Annotated[int, Field(gt=0)] = 7,
        shift: bool = False,
        heads: int | None = None,
        head_dim: int | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = heads_of(dim, heads, head_dim)
        size = min(window, *(n for n in (place.grid if place else ()) if n), window)
        self.cut, self.grid = Cut(size, front=size - size // 2 if shift else 0), (size, size)
        self.mix = nn.Conv1d(self.heads * size**2, self.heads * size**2, 1, groups=self.heads)
        self.resizes: Mapping[str, Resize] = {"mix.weight": _resize_matrices, "mix.bias": _resize_biases}

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        grid = grid_of(x)
        cut = for_map(self.cut, grid)
        return merge(self._mixed(partition(x, cut)), cut, grid)

    def _mixed(self, groups: Tensor) -> Tensor:
        """(groups, N, C) to the same."""
        split = groups.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (groups, heads, N, D)
        if untouched(self.mix, nn.Conv1d):
            matrix = self.mix.weight.view(self.heads, -1, groups.shape[1])
            y = matrix @ split
            y = y if self.mix.bias is None else y + self.mix.bias.view(self.heads, -1, 1)
        else:
            y = self.mix(split.flatten(1, 2)).unflatten(1, (self.heads, -1))
        return y.transpose(1, 2).flatten(2)
