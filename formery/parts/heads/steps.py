"""Scores at every step: what a policy does next, what a frame is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ...context import Context
from ...spec import NormSpec, Place, build
from ..dense import Dense
from ..initial import draw
from .head import Features, Head


class Steps(Head):
    """Norm, then `num_classes` scores of each step, which later steps have no part in; the steps themselves for 0."""

    EXAMPLES = ({"num_classes": 3}, {"num_classes": 3, "norm": "rms", "bias": False})
    scorers = ("scores",)
    causal = True

    def __init__(
        self,
        dim: int,
        *,
        num_classes: Annotated[int, Field(ge=0)],
        norm: NormSpec | None = None,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("head")
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.num_classes = num_classes
        self.scores = Dense(dim, num_classes, bias=bias) if num_classes else None
        if self.scores is not None:
            draw(self.scores)

    def finish(self, x: Tensor, ctx: Context) -> Tensor:
        return x if self.norm is None else self.norm(x, ctx)

    def forward(self, features: Features, ctx: Context) -> Tensor:
        return features.x if self.scores is None else self.scores(features.x)
