"""Class scores of an image or a sequence."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context
from ...errors import CannotRun
from ...spec import NormSpec, Place, build
from ..dense import Dense
from ..initial import draw
from .head import Classifier, Features

Pool = Literal["avg", "max", "token", ""]
Pooling = Literal["avg", "max", "token", "sequence", ""]


class Classes(Classifier):
    """Norm and pooling over the tokens in the given `order`, then a dense layer to `num_classes` scores.

    PoolFormer's authors norm first (group norm over the map), timm's PoolFormer and ConvNeXt pool first. `pool` is the
    mean or maximum over the grid, the first prefix token, a mean whose weights are learned ("sequence": a dense layer
    gives each token of the grid a score, and a softmax over the tokens makes weights of them; CCT, arXiv 2104.05704),
    or nothing ("": scores of each token, a map's with channels second). With 0 classes the pooled features come out.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"num_classes": 3},
        {"num_classes": 3, "order": "pool_norm", "dropout": 0.1},
        {"num_classes": 0, "pool": "max"},
        {"num_classes": 3, "pool": "sequence"},
    )
    unseen: ClassVar[tuple[str, ...]] = ("pool", "order")

    def __init__(
        self,
        dim: int,
        *,
        num_classes: Annotated[int, Field(ge=0)] = 1000,
        pool: Pooling = "avg",
        norm: NormSpec | None = "layer",
        order: Literal["norm_pool", "pool_norm"] = "norm_pool",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("head")
        self.dim, self.order, self.dropout, self.use_bias = dim, order, dropout, bias
        self.norm = None if norm is None else build("norm", norm, dim, place=place.at("norm"))
        self.weigh: nn.Module | None = None
        """The score of a token, by which it counts in the pooled features."""
        self.set_pool(pool)
        self.set_classes(num_classes)

    def set_pool(self, pool: Pooling, std: float | None = 0.02) -> None:
        """Another pooling; learned weights stay where they go on being used, else they are drawn as a fresh layer."""
        if pool != "sequence":
            self.weigh = None
        elif self.weigh is None:
            layer = Dense(self.dim, 1)
            draw(layer, std)
            self.weigh = layer
        self.pool: Pooling = pool

    def set_classes(self, num_classes: int, std: float | None = 0.02) -> None:
        """A fresh dense layer for `num_classes` classes, drawn with `std` as by `initial.draw`; none for 0."""
        layer = Dense(self.dim, num_classes, bias=self.use_bias) if num_classes else None
        if layer is not None:
            draw(layer, std)
        self.num_classes, self.fc = num_classes, layer

    def finish(self, x: Tensor, ctx: Context) -> Tensor:
        return self.norm(x, ctx) if self.norm is not None and self.order == "norm_pool" else x

    def pooled(self, features: Features, ctx: Context) -> Tensor:
        """(B, C) what the dense layer sees ((B, tokens, C) with pool "")."""
        if self.pool == "sequence":
            x = self._weighted(features, ctx)
        else:
            x = pool(features, self.pool, ctx)
        if self.norm is not None and self.order == "pool_norm":
            x = self.norm(x, ctx)
        return x

    def _weighted(self, features: Features, ctx: Context) -> Tensor:
        """(B, C): the mean of the grid's tokens with a softmax of their scores as weights, padding without any."""
        assert self.weigh is not None
        tokens: Tensor = features.x[:, features.prefix :] if features.x.dim() == 3 else features.x.flatten(1, -2)
        scores = self.weigh(tokens).mT
        if ctx.padding is not None:
            scores = scores.masked_fill(ctx.padding[:, None], torch.finfo(scores.dtype).min)
            tokens = tokens.masked_fill(ctx.padding[..., None], 0.0)
        return (scores.softmax(-1) @ tokens)[:, 0]

    def scores(self, pooled: Tensor) -> Tensor:
        """(B, num_classes) from pooled features."""
        pooled = self._dropped(pooled)
        return pooled if self.fc is None else self.fc(pooled)

    def _dropped(self, pooled: Tensor) -> Tensor:
        return F.dropout(pooled, self.dropout, self.training) if self.dropout else pooled


def pool(features: Features, how: Pool, ctx: Context) -> Tensor:
    """The features' tokens as (B, C): their mean or maximum over the grid, the first prefix token, or all for ""."""
    x: Tensor = features.x
    if how == "token":
        if not features.prefix:
            raise CannotRun("pool 'token' takes the class token, and these features have none; pool otherwise")
        return x[:, 0]
    if not how:
        return x
    tokens = x[:, features.prefix :] if x.dim() == 3 else x.flatten(1, -2)
    if ctx.padding is None:
        return tokens.amax(1) if how == "max" else tokens.mean(1)
    real = ~ctx.padding[..., None]
    filled = tokens.masked_fill(~real, float("-inf") if how == "max" else 0.0)
    return filled.amax(1) if how == "max" else filled.sum(1) / real.sum(1).clamp(min=1)
