"""Class scores by a network of one hidden layer (MetaFormer baselines, arXiv 2210.13452)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from ...context import NOTHING
from ...spec import NormSpec, Place, build
from ..activations import Activation
from ..dense import Dense, activated
from ..initial import draw
from ..norms.norm import Norm
from ..widths import positive
from .classes import Classes, Pool


class MLPClasses(Classes):
    """As `classes` up to the pooled features; then dense to `ratio` times the width, activation, `hidden_norm` and the
    dense layer of the scores. With 0 classes the pooled features come out, and there is no hidden layer."""

    EXAMPLES = (
        {"num_classes": 3, "ratio": 2.0},
        {"num_classes": 3, "order": "norm_pool", "hidden_norm": None, "activation": "gelu"},
        {"num_classes": 0},
    )
    unseen = ("pool", "order", "activation")
    expand: Dense | None
    hidden_norm: Norm | None

    def __init__(
        self,
        dim: int,
        *,
        num_classes: Annotated[int, Field(ge=0)] = 1000,
        pool: Pool = "avg",
        norm: NormSpec | None = "layer",
        order: Literal["norm_pool", "pool_norm"] = "pool_norm",
        ratio: Annotated[float, Field(gt=0)] = 4.0,
        activation: Activation = "relu2",
        hidden_norm: NormSpec | None = "layer",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        self.hidden, self.activation, self.norm_node = positive("hidden", int(dim * ratio)), activation, hidden_norm
        super().__init__(
            dim, num_classes=num_classes, pool=pool, norm=norm, order=order, dropout=dropout, bias=bias, place=place
        )

    def set_classes(self, num_classes: int, std: float | None = 0.02) -> None:
        """A fresh last layer; the hidden one stays, and is fresh where there was none."""
        if not num_classes:
            self.expand, self.hidden_norm, self.fc = None, None, None
        else:
            if getattr(self, "expand", None) is None:
                self.expand = Dense(self.dim, self.hidden, bias=self.use_bias)
                node, place = self.norm_node, Place("head.hidden_norm")
                self.hidden_norm = None if node is None else build("norm", node, self.hidden, place=place)
                draw(self.expand, std)
            self.fc = Dense(self.hidden, num_classes, bias=self.use_bias)
            draw(self.fc, std)
        self.num_classes = num_classes

    def scores(self, pooled: Tensor) -> Tensor:
        if self.expand is None:
            return super().scores(pooled)
        hidden = activated(self.expand, pooled, self.activation)
        return super().scores(hidden if self.hidden_norm is None else self.hidden_norm(hidden, NOTHING))
