"""Pre-norm residual: the Transformer's usual wiring since GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ...context import Context
from ...spec import NormSpec, Place
from .scheme import LayerScale, Scheme, Sublayer, at, widths


class Pre(Scheme):
    """x + sublayer(norm(x)), or r x + sublayer(norm(x)) with a learned factor a channel that begins at `stream_scale`
    (NormFormer, arXiv 2110.09456, section 2; CAFormer)."""

    EXAMPLES = (*Scheme.EXAMPLES, {"stream_scale": 1.0, "scale": 0.1})
    norms_at = "in"

    def __init__(
        self,
        dim: int | Sequence[int],
        num_sublayers: int,
        *,
        norm: NormSpec | None = "layer",
        scale: float | None = None,
        stream_scale: float | None = None,
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bare: list[int] | None = None,
        unnormed: list[int] | None = None,
        drop_shares: list[Annotated[float, Field(ge=0, le=1)]] | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(
            dim, num_sublayers, norm=norm, scale=scale, drop_path=drop_path, bare=bare, unnormed=unnormed,
            drop_shares=drop_shares, place=place,
        )  # fmt: skip
        self.stream_scales: nn.ModuleList | None = None
        if stream_scale is not None:
            self.stream_scales = nn.ModuleList(LayerScale(width, stream_scale) for width in widths(dim, num_sublayers))

    def step(self, stream: Tensor, index: int, sublayer: Sublayer, ctx: Context) -> Tensor:
        y = sublayer(self.normed(index, stream, ctx))
        if self.stream_scales is None:
            return self.added(index, stream, y)
        factor = at(self.stream_scales, index).weight
        assert isinstance(factor, Tensor)
        return torch.addcmul(self.branch(index, y), stream, factor)
