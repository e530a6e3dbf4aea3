"""The dense layer."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops.linear import Activation as Fusable
from ..ops.linear import linear
from ..ops.linear.products import ACTIVATIONS as FUSABLE
from .activations import Activation, activate


class Dense(nn.Linear):
    """`nn.Linear` by the fastest product this machine has; parameters, names and initialisation are its own."""

    def forward(self, input: Tensor, activation: Fusable | None = None) -> Tensor:
        """x (..., in_features) -> activation(...) of (..., out_features)."""
        return linear(input, self.weight, self.bias, activation)


def activated(layer: nn.Module, x: Tensor, activation: Activation | nn.Module) -> Tensor:
    """activation(layer(x)), in one pass over memory where `layer` is a `Dense` whose own output nobody looks at."""
    forward = layer.__dict__.get("forward")
    plain = type(layer) is Dense and (forward is None or getattr(forward, "activates", False))
    if plain and not layer._forward_hooks and isinstance(activation, str) and activation in FUSABLE:
        return layer(x, activation)
    return activate(layer(x), activation)


def width_of(layer: nn.Module) -> int:
    """Channels that come out of a dense layer, or of what a rewrite put in its place; 0 where that does not say."""
    return int(getattr(layer, "out_features", 0))
