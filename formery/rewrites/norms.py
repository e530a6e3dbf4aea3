"""Norms over the channels, whoever wrote them, turned into formery's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from ..parts.norms.batch import Batch
from ..parts.norms.group1 import GroupOne
from ..parts.norms.layer import Layer
from ..parts.norms.rms import RMS

AFFINE_NORMS = (Layer, RMS, GroupOne, Batch)
"""Formery's norms that end in a product with their weight, and a sum with their bias where they have one."""

KINDS: dict[str, Literal["layer", "rms"]] = {
    "formery.parts.norms.layer.Layer": "layer",
    "formery.parts.norms.rms.RMS": "rms",
    "torch.nn.modules.normalization.LayerNorm": "layer",
    "torch.nn.modules.normalization.RMSNorm": "rms",
    "timm.layers.norm.LayerNorm": "layer",
    "timm.layers.norm.RmsNorm": "rms",
    "transformers.models.llama.modeling_llama.LlamaRMSNorm": "rms",
}
"""Classes that norm the last axis alone and multiply by a weight."""


FIXED = ("transformers.models.llama.modeling_llama.LlamaRMSNorm",)
"""Those that work in float32 whatever the model's type, which formery's do not: they stay as they are."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a norm over the channels is made of."""

    kind: Literal["layer", "rms"]
    dim: int
    eps: float
    weight: nn.Parameter | None
    bias: nn.Parameter | None


def facts_of(norm: nn.Module) -> Facts | None:
    """The facts of a norm over the last axis; None for any other module."""
    cls = type(norm)
    kind = KINDS.get(f"{cls.__module__}.{cls.__qualname__}")
    if kind is None:
        return None
    weight: Any = getattr(norm, "weight", None)
    bias: Any = getattr(norm, "bias", None)
    shape: Any = getattr(norm, "normalized_shape", None) or getattr(norm, "shape", None) or weight.shape
    eps: Any = norm.eps if hasattr(norm, "eps") else getattr(norm, "variance_epsilon", None)
    if len(shape) != 1 or not isinstance(eps, float):
        return None
    return Facts(kind, int(shape[0]), eps, weight, bias)


def is_fixed(norm: nn.Module) -> bool:
    """Whether no norm of formery's equals it to the last digit."""
    return f"{type(norm).__module__}.{type(norm).__qualname__}" in FIXED


def as_rms(norm: nn.Module) -> RMS:
    """The RMS norm that does to tokens of mean zero what a layer norm does; weight and bias are the same parameters."""
    facts = facts_of(norm)
    assert facts is not None
    new = RMS(facts.dim, eps=facts.eps, affine=False)
    new.weight, new.bias = facts.weight, facts.bias
    return new.train(norm.training)


def without_affine(norm: nn.Module) -> Layer | RMS:
    """The same norm without weight and bias."""
    facts = facts_of(norm)
    assert facts is not None
    made: Layer | RMS
    if facts.kind == "rms":
        made = RMS(facts.dim, eps=facts.eps, affine=False)
    else:
        made = Layer(facts.dim, eps=facts.eps, affine=False)
    return made.train(norm.training)
