"""The steps of a fold, as plain data and as surgery."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from ..errors import CannotRewrite
from ..parts import affine
from ..parts.norms.batch import affine_map
from ..parts.norms.global_response import GlobalResponse
from .anatomy.probing import is_batch_norm, is_dense, mixes_channels, pads_nothing
from .norms import AFFINE_NORMS, Facts, as_rms, facts_of, without_affine
from .rewrite import Step
from .surgery import module_at, replace, tensor_at, the_vector, vacate


class ScaleBack(Step):
    """A layer scale goes into the layer that gives what it scales."""

    do: Literal["scale_into_writer"] = "scale_into_writer"
    scale: str
    into: str


class ScaleIntoNorm(Step):
    """A layer scale goes into weight and bias of the norm that gives what it scales."""

    do: Literal["scale_into_norm"] = "scale_into_norm"
    scale: str
    into: str


class BatchNormBack(Step):
    """A batch norm goes into the layer before it."""

    do: Literal["batch_norm_into_writer"] = "batch_norm_into_writer"
    norm: str
    into: str


class BatchNormForward(Step):
    """A batch norm goes into all layers that read it."""

    do: Literal["batch_norm_into_readers"] = "batch_norm_into_readers"
    norm: str
    into: list[str]


class ShiftForward(Step):
    """The bias of a global response norm goes into the layer that reads it; the norm stays, without it."""

    do: Literal["shift_into_reader"] = "shift_into_reader"
    norm: str
    into: str


class AffineForward(Step):
    """Weight and bias of a norm go into all layers that read it; the norm stays, without them."""

    do: Literal["affine_into_readers"] = "affine_into_readers"
    norm: str
    into: list[str]


class Untie(Step):
    """The head's weight becomes its own; until now it was the stem's table."""

    do: Literal["untie"] = "untie"
    head: str
    weight: str


class Recentre(Step):
    """The stream that begins in a stage loses its mean: what writes it is recentred, and what norms it becomes RMS."""

    do: Literal["recentre"] = "recentre"
    stage: str
    dense: list[str]
    tables: list[str]
    norms: list[str]


AnyStep = ScaleBack | ScaleIntoNorm | BatchNormBack | BatchNormForward | ShiftForward | AffineForward | Untie | Recentre
STEP: TypeAdapter[AnyStep] = TypeAdapter(Annotated[AnyStep, Field(discriminator="do")])


def perform_step(model: nn.Module, step: AnyStep) -> None:
    """One fold; CannotRewrite where the model has not what the step takes it to have."""
    match step:
        case ScaleBack():
            layer, s = _dense(model, step.into), the_vector(model, step.scale)
            _same(step.scale, s.shape[0], step.into, layer.weight.shape[0])
            affine.after(layer, s.double())
            vacate(model, step.scale)
        case ScaleIntoNorm():
            norm, s = module_at(model, step.into), the_vector(model, step.scale)
            weight = getattr(norm, "weight", None)
            if type(norm) not in AFFINE_NORMS or not isinstance(weight, nn.Parameter):
                raise CannotRewrite(f"{step.into} is no norm with a weight; was the plan edited?")
            _same(step.scale, s.shape[0], step.into, weight.shape[0])
            affine.rescale_norm(norm, s)
            vacate(model, step.scale)
        case BatchNormBack():
            layer, (s, t) = _dense(model, step.into), _batch_norm(model, step.norm)
            _same(step.norm, s.shape[0], step.into, layer.weight.shape[0])
            affine.after(layer, s, t)
            vacate(model, step.norm)
        case BatchNormForward():
            s, t = _batch_norm(model, step.norm)
            for path in step.into:
                layer = _dense(model, path)
                _same(step.norm, s.shape[0], path, _inputs(layer))
                if not pads_nothing(layer):
                    raise CannotRewrite(f"{path} pads with zeros, which {step.norm} shifts; was the plan edited?")
                affine.before(layer, s, t)
            vacate(model, step.norm)
        case ShiftForward():
            norm, layer = module_at(model, step.norm), _dense(model, step.into)
            if type(norm) is not GlobalResponse or norm.bias is None:
                raise CannotRewrite(f"{step.norm} is no global response norm with a bias; was the plan edited?")
            _same(step.norm, norm.bias.shape[0], step.into, _inputs(layer))
            if not pads_nothing(layer):
                raise CannotRewrite(f"{step.into} pads with zeros, which {step.norm} shifts; was the plan edited?")
            affine.before(layer, torch.ones_like(norm.bias, dtype=torch.float64), norm.bias.double())
            norm.bias = None
        case AffineForward():
            facts = _norm(model, step.norm)
            if facts.weight is None:
                raise CannotRewrite(f"{step.norm} has no weight; was the plan performed already, or edited?")
            shift = None if facts.bias is None else facts.bias.double()
            for path in step.into:
                layer = _dense(model, path)
                _same(step.norm, facts.dim, path, _inputs(layer))
                affine.before(layer, facts.weight.double(), shift)
            replace(model, step.norm, without_affine(module_at(model, step.norm)))
        case Untie():
            _untie(model, step)
        case Recentre():
            _recentre(model, step)


def _untie(model: nn.Module, step: Untie) -> None:
    head, weight = module_at(model, step.head), tensor_at(model, step.weight)
    if not getattr(head, "tie", False):
        raise CannotRewrite(f"{step.head}: its weight is not tied; was the plan edited?")
    head.tie = False  # type: ignore[assignment]
    replace(model, step.weight, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))


def _recentre(model: nn.Module, step: Recentre) -> None:
    for path in step.dense:
        layer = _dense(model, path)
        if not mixes_channels(layer):
            raise CannotRewrite(f"{path} convolves groups of channels, which have no common mean; was the plan edited?")
        affine.recentre(layer)
    for path in step.tables:
        affine.recentre_table(tensor_at(model, path))
    for path in step.norms:
        if _norm(model, path).kind != "layer":
            raise CannotRewrite(f"{path} is no layer norm; was the plan performed already, or edited?")
        replace(model, path, as_rms(module_at(model, path)))


def _dense(model: nn.Module, path: str) -> Any:
    module = module_at(model, path)
    if not is_dense(module):
        raise CannotRewrite(
            f"{path} is a {type(module).__name__}, no plain linear or convolution; was the plan edited?"
        )
    return module


def _inputs(layer: Any) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _batch_norm(model: nn.Module, path: str) -> tuple[Tensor, Tensor]:
    module = module_at(model, path)
    if not is_batch_norm(module):
        raise CannotRewrite(f"{path} is a {type(module).__name__}, no batch norm; was the plan edited?")
    return affine_map(module)


def _norm(model: nn.Module, path: str) -> Facts:
    module = module_at(model, path)
    facts = facts_of(module)
    if facts is None:
        raise CannotRewrite(f"{path} is a {type(module).__name__}, no layer or RMS norm; was the plan edited?")
    return facts


def _same(path: str, width: int, other: str, needed: int) -> None:
    if width != needed:
        raise CannotRewrite(f"{path} has {width} channels, {other} has {needed}; the plan belongs to another model")
