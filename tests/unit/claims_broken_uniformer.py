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


BROKEN = [(uniformer.local_affinity, activated_aggregator)]
