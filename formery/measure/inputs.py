"""What to run a model on: tensors as given, tensors of a given shape, or the model's own nominal input."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import BadSpec
from ..model import Model

ModelT = TypeVar("ModelT", bound=nn.Module)
Shape = int | Sequence[int]
Subject = nn.Module | str | Mapping[str, Any]
"""A model; or the name or spec of one, which is then built on the meta device, without values."""


def as_model(subject: Subject) -> nn.Module:
    """The model itself, or one on the meta device for a name or a spec; UnknownName or BadSpec where there is none."""
    if isinstance(subject, nn.Module):
        return subject
    from ..create import create_model

    with torch.device("meta"):
        return create_model(subject).eval()


def without_values(model: ModelT) -> ModelT:
    """A copy of `model` on the meta device: its structure at no memory; shared tensors stay shared."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(t): t if t.is_meta else _hollow(t) for t in tensors})


def _hollow(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def as_inputs(model: nn.Module, given: tuple[Any, ...], *, batch: int = 1) -> tuple[Any, ...]:
    """Positional inputs for `model`: tensors as they are; numbers as one shape, a sequence of numbers as a shape each.

    Images and other values are normal draws, tokens uniform ones. Nothing given: one item of the model's nominal size.
    """
    if not given:
        return (random_input(model, nominal_shape(model, batch)),)
    if all(isinstance(n, int) and not isinstance(n, bool) for n in given):
        given = (tuple(given),)
    return tuple(random_input(model, g) if _is_shape(g) else g for g in given)


def nominal_shape(model: nn.Module, batch: int = 1) -> tuple[int, ...]:
    """The shape of `batch` items as the model's spec has them."""
    if not isinstance(model, Model):
        raise BadSpec("give the shape of an input: only formery's models say theirs")
    stem = model.resolved["stem"]
    if "img_size" in stem:
        size = stem["img_size"]
        height, width = (size, size) if isinstance(size, int) else size
        frames = (int(stem["frames"]),) if stem.get("frames") else ()
        return (batch, int(stem["in_chans"]), *frames, height, width)
    if model.stem.grid and model.stem.grid[0]:
        return (batch, *model.stem.grid, *(() if model.stem.channels is None else (model.stem.channels,)))
    raise BadSpec(f"{model.name} takes inputs of any length; give one, such as 1, 128")


def random_input(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """Seeded values of `shape`, of the model's device and dtype; tokens where a formery model reads tokens."""
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = torch.device("cpu") if like is None else like.device
    generator = torch.Generator().manual_seed(0)
    vocab = getattr(model.stem, "vocab", None) if isinstance(model, Model) else None
    if vocab is not None:
        return torch.randint(0, int(vocab), tuple(shape), generator=generator).to(device)
    values = torch.randn(tuple(shape), generator=generator, device="cpu")
    return values.to(device, None if like is None else like.dtype)


def _is_shape(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(n, int) for n in value)
