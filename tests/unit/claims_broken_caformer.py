"""What breaks claims of MetaFormer baselines: an activation and a scheme that are a little wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from formery.claims import caformer
from formery.claims.check import Check
from formery.parts.activations import StarReLU
from formery.parts.schemes.pre import Pre
from tests.unit.claims_broken import Break


def not_squared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StarReLU, "forward", lambda self, x: self.scale * torch.relu(x) + self.bias)


def factor_on_the_branch(patch: pytest.MonkeyPatch) -> None:
    """A layer scale in place of the factor on the stream."""

    def step(self: Pre, stream: Tensor, index: int, sublayer: object, ctx: object) -> Tensor:
        y = sublayer(self.normed(index, stream, ctx))  # type: ignore[operator, arg-type]
        return stream + (y if self.stream_scales is None else self.stream_scales[index](y))

    patch.setattr(Pre, "step", step)


BROKEN: list[tuple[Check, Break]] = [
    (caformer.star_relu, not_squared),
    (caformer.stream_scale, factor_on_the_branch),
]
