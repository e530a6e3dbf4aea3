"""Class scores of tokens that are several tensors (CrossViT, arXiv 2103.14899, section 3.2)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ...context import Context
from ...spec import NormSpec, Place, build
from ..dense import Dense
from ..initial import draw
from ..several import Widths, several
from .classes import Pool
from .classes import pool as pool_tokens
from .head import Classifier, Features


class BranchClasses(Classifier):
    """For each tensor of the tokens a norm, pooling (see `classes`) and a dense layer; the mean of their scores.

    With `average` false the scores of each branch come out, (B, branches, num_classes). With 0 classes the pooled
    features come out, those of all branches in one row.
    """

    EXAMPLES = ({"num_classes": 3}, {"num_classes": 3, "pool": "max", "average": False})
    unseen = ("pool",)
    takes_several = True

    def __init__(
        self,
        dim: Widths,
        *,
        num_classes: Annotated[int, Field(ge=0)] = 1000,
        pool: Pool = "avg",
        norm: NormSpec = "layer",
        average: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        bias: bool = True,
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("head")
        self.dims, self.average, self.dropout, self.use_bias = several(dim), average, dropout, bias
        self.pool: Pool = pool
        self.norm = nn.ModuleList(build("norm", norm, width, place=place.at("norm")) for width in self.dims)
        self.set_classes(num_classes)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(f"fc.{branch}" for branch in range(len(self.fc or ())))

    def set_classes(self, num_classes: int, std: float | None = 0.02) -> None:
        layers = [Dense(width, num_classes, bias=self.use_bias) for width in self.dims] if num_classes else []
        for layer in layers:
            draw(layer, std)
        self.num_classes, self.fc = num_classes, nn.ModuleList(layers) if layers else None

    def finish(self, x: Tensor, ctx: Context) -> Tensor:
        return self.finish_branch(x, ctx, 0)

    def finish_branch(self, x: Tensor, ctx: Context, branch: int) -> Tensor:
        norm = self.norm[branch]
        y: Tensor = x if isinstance(norm, nn.Identity) else norm(x, ctx)  # the identity is what a fold leaves
        return y

    def pooled(self, features: Features, ctx: Context) -> Tensor:
        """(B, C) of all branches in one row; with pool "" (B, tokens, C), where branches have as many."""
        each = [pool_tokens(Features(x, prefix=features.prefix), self.pool, ctx) for x in several(features.x)]
        return each[0] if len(each) == 1 else torch.cat(each, dim=-1)

    def scores(self, pooled: Tensor) -> Tensor:
        if self.dropout:
            pooled = F.dropout(pooled, self.dropout, self.training)
        if self.fc is None:
            return pooled
        each = torch.stack([fc(x) for fc, x in zip(self.fc, pooled.split(self.dims, dim=-1), strict=True)], dim=1)
        return each.mean(1) if self.average else each
