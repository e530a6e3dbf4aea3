"""The fastest dense products in anybody's model: timm's, transformers', or your own.

model = accelerate(timm.create_model("vit_small_patch16_224").eval(), pack=True)
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from .ops.linear import Activation, Int8Weight, PackedWeight, linear
from .parts.dense import Dense

ModelT = TypeVar("ModelT", bound=nn.Module)


class FastForward:
    """The forward of one `nn.Linear`, by `ops.linear`; it stands on the instance, and the module stays what it is."""

    def __init__(self, module: nn.Linear, packed: PackedWeight | None, int8: Int8Weight | None) -> None:
        self.module, self.packed, self.int8 = module, packed, int8

    activates = True
    """Whether it takes an activation to be fused, as `Dense` does."""

    def __call__(self, input: Tensor, activation: Activation | None = None) -> Tensor:
        module = self.module
        if module.training:
            for copy in (self.packed, self.int8):
                if copy is not None:
                    copy.drop()
            return linear(input, module.weight, module.bias, activation)
        return linear(input, module.weight, module.bias, activation, self.packed, self.int8)


def accelerate(model: ModelT, on: bool = True, *, pack: bool = False, int8: bool = False) -> ModelT:
    """Let every dense layer of `model` take the product that is fastest here (`ops.linear`), in place; returns it.

    `pack` keeps a second copy of the weights in oneDNN's order for inference (no gradient asked for, eval mode), where
    that was measured to be faster; it follows every change of a weight but those made behind torch's back, through
    `.data`. Values change by rounding only. `int8` keeps a copy in whole numbers, from which a few rows (one token of a
    few streams) take their products, in about half of float32's time; values change by 0.5 to 0.9 % a layer, so
    measure the score (`ops.linear.int8`). Names in the state dict, hooks, types and saving are untouched;
    layers whose class or owner computes something else are left alone. `on=False` takes everything off again; both may
    be repeated.
    """
    for module in model.modules():
        if not isinstance(module, nn.Linear):
            continue
        own = module.__dict__.get("forward")
        if isinstance(own, FastForward):
            del module.__dict__["forward"]
        elif own is not None:
            continue  # somebody else's
        forward = type(module).forward
        if on and (forward is nn.Linear.forward or ((pack or int8) and forward is Dense.forward)):
            copies = PackedWeight() if pack else None, Int8Weight() if int8 else None
            module.__dict__["forward"] = FastForward(module, *copies)
    return model
