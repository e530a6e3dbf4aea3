"""The dense layer."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.linear import linear


class Dense(nn.Linear):
    """`nn.Linear` by the fastest product this machine has; parameters, names and initialisation are its own."""

    def forward(self, input: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return linear(input, self.weight, self.bias)
