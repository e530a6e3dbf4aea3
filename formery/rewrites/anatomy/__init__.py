"""Anatomy: where blocks, sublayers, norms, layer scales, and readers and writers of the residual stream sit in a model.

Formery's models are known by what their parts declare; timm's and transformers' by the class's module and name, without
importing either. What is not known is refused by name, never skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from torch import nn

from ...errors import CannotRewrite
from .anatomy import Anatomy, Block, Exit, Pair, Source, Stage, Sublayer

__all__ = ["Anatomy", "Block", "Exit", "Pair", "Source", "Stage", "Sublayer", "of"]

KNOWN = {
    "formery.model.Model": "own:anatomy",
    "timm.models.vision_transformer.VisionTransformer": "timm_models:vision_transformer",
    "timm.models.convnext.ConvNeXt": "timm_models:convnext",
    "timm.models.metaformer.MetaFormer": "timm_models:metaformer",
    "transformers.models.llama.modeling_llama.LlamaForCausalLM": "transformers_models:llama",
    "transformers.models.vit.modeling_vit.ViTForImageClassification": "transformers_models:vit",
}
"""Classes whose anatomy is known, and the function that knows it."""


def of(model: nn.Module) -> Anatomy:
    """The anatomy of a model; CannotRewrite names the class that is not known."""
    for cls in type(model).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name in KNOWN:
            if cls is not type(model) and not name.startswith("formery."):
                break  # a subclass may have another forward
            module, _, function = KNOWN[name].partition(":")
            knows: Callable[[nn.Module], Anatomy] = getattr(import_module(f"{__name__}.{module}"), function)
            return knows(model)
    known = ", ".join(sorted(name.rpartition(".")[2] for name in KNOWN))
    raise CannotRewrite(
        f"the anatomy of {type(model).__module__}.{type(model).__qualname__} is not known; known models are: {known}"
    )
