"""Scores of two classifiers, one of which learns from a teacher (DeiT, arXiv 2012.12877, section 3.2)."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ...context import Context
from ...errors import CannotRun
from ..dense import Dense
from ..initial import draw
from .classes import Classes
from .head import Features


class DistilledScores(NamedTuple):
    """What a model with two classifiers gives in training, (B, num_classes) each."""

    scores: Tensor
    """Of the classifier that learns from labels."""
    distilled: Tensor
    """Of the one that learns from a teacher."""

    def mean(self) -> Tensor:
        """What the model gives in evaluation."""
        return (self.scores + self.distilled) / 2


class Distilled(Classes):
    """The head `classes` with a second dense layer beside the first: `DistilledScores` in training, their mean else
    (and in training where they are not to come `apart`).

    Both read the same pooled features (EfficientFormer, LeViT); with pool "token" the first of them reads the first
    prefix token and the second the second (DeiT), and the pooled features are (B, 2, C).
    """

    EXAMPLES = ({"num_classes": 3}, {"num_classes": 3, "order": "pool_norm", "dropout": 0.1}, {"num_classes": 0})
    num_tokens = 2
    scorers = ("fc", "fc_distilled")

    def set_classes(self, num_classes: int, std: float | None = 0.02) -> None:
        super().set_classes(num_classes, std)
        self.fc_distilled = Dense(self.dim, num_classes, bias=self.use_bias) if num_classes else None
        if self.fc_distilled is not None:
            draw(self.fc_distilled, std)

    def pooled(self, features: Features, ctx: Context) -> Tensor:
        if self.pool != "token":
            return super().pooled(features, ctx)
        if features.prefix < 2:
            raise CannotRun("pool 'token' takes a class and a distillation token; set prefix to 2, or pool otherwise")
        x = features.x[:, :2]
        return self.norm(x, ctx) if self.norm is not None and self.order == "pool_norm" else x

    def scores(self, pooled: Tensor) -> Any:
        if self.fc is None or self.fc_distilled is None:
            return pooled
        apart = pooled.unbind(1) if self.pool == "token" else (pooled, pooled)
        first, second = (self._dropped(x) for x in apart)
        both = DistilledScores(self.fc(first), self.fc_distilled(second))
        return both if self.training and self.apart else both.mean()
