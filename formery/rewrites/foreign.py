"""Taking branches and blocks out of timm's and transformers' models."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import CannotRewrite
from .anatomy import of
from .anatomy.branches import Narrowed, branches_of, narrow
from .removal import Removal
from .surgery import module_at

LAYERS = {"LlamaForCausalLM": "model.layers", "ViTForImageClassification": "vit.layers"}
"""Where transformers' models have the list of layers whose length their config tells."""

WHOLE = ("conv_dw", "mlp")
"""Sublayers of a block that is one branch: ConvNeXt's."""


def remove_foreign(model: nn.Module, steps: list[Removal]) -> None:
    """Narrow the blocks; then, in transformers' models, take out the empty ones and count layers anew.

    A layer's key-value cache has the place `layer_idx`; the length of the past is read from place 0. So the attention
    layers that are left get the places 0, 1, 2, ...
    """
    of(model)  # refuses what is not known
    for step in steps:
        _narrow(model, step)
    if type(model).__name__ in LAYERS:
        _count_anew(model, LAYERS[type(model).__name__])


def _narrow(model: nn.Module, step: Removal) -> None:
    block = module_at(model, step.block)
    branches = branches_of(block, step.block)
    separable = bool(branches) or isinstance(block, Narrowed)
    present = [b.sublayer for b in branches] if separable else [n for n in WHOLE if hasattr(block, n)]
    for name in step.sublayers:
        if name not in present:
            there = ", ".join(present) or "none"
            raise CannotRewrite(f"{step.block} has no {name!r} to drop (any more); it has {there}")
    if not separable and set(step.sublayers) != set(present):
        raise CannotRewrite(f"{step.block}: the sublayers of this block can only be dropped together")
    narrow(block, tuple(branch for branch in branches if branch.sublayer not in step.sublayers))


def _count_anew(model: Any, path: str) -> None:
    layers = model.get_submodule(path)
    left = [i for i, layer in enumerate(layers) if not isinstance(layer, Narrowed) or layer.branches]
    config = model.config
    for index in reversed(range(len(layers))):
        if index not in left:
            del layers[index]
    config.num_hidden_layers = len(layers)
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = [config.layer_types[i] for i in left]
    attention = [layer.self_attn for layer in layers if hasattr(layer, "self_attn")]
    if not attention and path == "model.layers":
        raise CannotRewrite("without any attention layer this model's positions stand still when decoding; keep one")
    for place, layer in enumerate(attention):
        layer.layer_idx = place
    if path == "model.layers":
        config.drop_attn_list = [i for i, layer in enumerate(layers) if not hasattr(layer, "self_attn")]
        config.drop_mlp_list = [i for i, layer in enumerate(layers) if not hasattr(layer, "mlp")]
