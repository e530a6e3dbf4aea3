"""Average pooling as a token mixer: PoolFormer (arXiv 2111.11418, section 3.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from .mixer import Mixer


class Pooling(Mixer):
    """Mean over `size` x `size` neighbours (fewer at borders), minus the token itself, which the block adds back."""

    EXAMPLES = ({}, {"size": 5})
    unseen = ("size",)
    grids = (2,)

    def __init__(self, dim: int, *, size: int = 3) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise BadSpec(f"size is an odd number, got {size}")
        self.size = size

    def forward(self, x: Tensor, ctx: Context = NOTHING, state: State | None = None) -> Tensor:
        maps = x.movedim(-1, 1)  # a view: channels-last memory
        pooled = F.avg_pool2d(maps, self.size, stride=1, padding=self.size // 2, count_include_pad=False)
        return pooled.movedim(1, -1) - x
