"""What breaks claims of UniFormer."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from formery.claims import uniformer
from formery.parts.mixers.separable_conv import SeparableConv


def activated_aggregator(patch: pytest.MonkeyPatch) -> None:
    """A local aggregator with an activation inside."""
    whole = SeparableConv.forward

    def forward(self: SeparableConv, x: Tensor, *rest: Any) -> Tensor:
        self.activation = "gelu"
        return whole(self, x, *rest)

    patch.setattr(SeparableConv, "forward", forward)


def mean_at_the_centre(patch: pytest.MonkeyPatch) -> None:
    """Weights inflated by the mean, whatever was asked for."""
    whole = uniformer.load_inflated
    patch.setattr(uniformer, "load_inflated", lambda model, theirs, rule: whole(model, theirs))


BROKEN = [
    (uniformer.local_affinity, activated_aggregator),
    (uniformer.inflation, mean_at_the_centre),
]
