"""Reaching into a model by dotted paths."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import CannotRewrite
from ..parts.part import Part


def module_at(model: nn.Module, path: str) -> nn.Module:
    """The module at `path`; CannotRewrite where there is none."""
    found = _reach(model, path)
    if not isinstance(found, nn.Module):
        raise CannotRewrite(f"{path}: this model has no such module; the plan belongs to another one, or was edited")
    return found


def tensor_at(model: nn.Module, path: str) -> nn.Parameter:
    """The parameter at `path`; CannotRewrite where there is none."""
    found = _reach(model, path)
    if not isinstance(found, nn.Parameter):
        raise CannotRewrite(f"{path}: this model has no such parameter; the plan belongs to another one, or was edited")
    return found


def is_module(model: nn.Module, path: str) -> bool:
    """Whether a module stands at `path`."""
    return isinstance(_reach(model, path), nn.Module)


def _reach(model: nn.Module, path: str) -> object:
    found: object = model
    for step in path.split("."):
        if not isinstance(found, nn.Module):
            return None
        owned = {**found._modules, **found._parameters}
        found = owned.get(step)
    return found


def replace(model: nn.Module, path: str, new: nn.Module | nn.Parameter | None) -> None:
    """Put `new` where `path` says."""
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, new)


def vacate(model: nn.Module, path: str) -> None:
    """Take away a module or parameter that does nothing any more. Formery's parts hold None for an optional module of
    theirs; lists and others' models get the identity."""
    owner, _, _ = path.rpartition(".")
    if not is_module(model, path) or isinstance(model.get_submodule(owner), Part):
        replace(model, path, None)
    else:
        replace(model, path, nn.Identity())


def the_vector(model: nn.Module, path: str) -> Tensor:
    """The one vector (C,) of a layer scale: the parameter at `path`, or the only one of the module there."""
    if not is_module(model, path):
        return tensor_at(model, path)
    parameters = list(module_at(model, path).parameters())
    if len(parameters) != 1 or parameters[0].dim() != 1:
        raise CannotRewrite(f"{path}: a layer scale has one vector; the plan belongs to another model, or was edited")
    return parameters[0]


def owners(model: nn.Module) -> dict[int, list[str]]:
    """Every name of each parameter, by the parameter's identity."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names
