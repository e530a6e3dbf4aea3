"""Class scores of a map, and in training those of the class token that went with it."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import Field
from torch import Tensor

from ...context import Context
from ...errors import CannotRun
from ...spec import NormSpec, Place, build
from ..dense import Dense
from ..initial import draw
from .classes import Classes, Pool
from .head import Features


class Scores(NamedTuple):
    """What comes out in training."""

    map: Tensor
    """(B, num_classes) of the pooled map."""
    token: Tensor
    """(B, num_classes) of the class token."""


class MapAndToken(Classes):
    """In evaluation `classes`; in training also scores of the class token in the features' extras, normed by
    `token_norm`, through a dense layer of their own. Their losses count alike (UniFormer's light models).

    Where outputs are not to come `apart`, training gives scores of the map alone, and the class token's classifier,
    which then learns nothing, is frozen.
    """

    EXAMPLES = (
        {"num_classes": 3},
        {"num_classes": 3, "norm": "rms", "token_norm": "rms"},
        {"num_classes": 0, "pool": "max"},
    )
    unseen = ("pool",)
    more_in_training = True
    scorers = ("fc", "token_fc")

    def __init__(
        self,
        dim: int,
        *,
        num_classes: Annotated[int, Field(ge=0)] = 1000,
        pool: Pool = "avg",
        norm: NormSpec | None = "layer",
        token_norm: NormSpec = "layer",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        place = place or Place("head")
        super().__init__(dim, num_classes=num_classes, pool=pool, norm=norm, dropout=dropout, bias=bias, place=place)
        self.token_norm = build("norm", token_norm, dim, place=place.at("token_norm"))

    def set_classes(self, num_classes: int, std: float | None = 0.02) -> None:
        super().set_classes(num_classes, std)
        layer = Dense(self.dim, num_classes, bias=self.use_bias) if num_classes else None
        if layer is not None:
            draw(layer, std)
        self.token_fc = layer
        self.set_apart(self.apart)

    def set_apart(self, apart: bool) -> None:
        super().set_apart(apart)
        for part in (getattr(self, "token_norm", None), self.token_fc):
            if part is not None:
                part.requires_grad_(apart)

    def forward(self, features: Features, ctx: Context) -> Any:
        scores = super().forward(features, ctx)
        if not (self.training and self.apart):
            return scores
        if "token" not in features.extras:
            raise CannotRun("head 'map_and_token' needs a body with a class token beside the map, such as slow_fast")
        token = self.token_norm(features.extras["token"][:, 0], ctx)
        return Scores(scores, token if self.token_fc is None else self.token_fc(token))
