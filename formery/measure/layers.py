"""One row a layer: parameters, multiply-accumulates, output, share of the time."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import registry
from ..model import Model
from ..parts.part import Part
from .inputs import as_inputs
from .macs import count_macs
from .report import Report, count, grid, share
from .report import time as in_words
from .running import evaluating, synchronize, using_threads
from .walk import watched

if TYPE_CHECKING:
    from rich.table import Table

ROLES = ("stem", "position", "merge", "norm", "mixer", "channel", "head")
"""Parts that have a row of their own; what stands inside one counts with it."""


@dataclass(frozen=True)
class Layer:
    """One layer in one forward of a whole batch."""

    path: str
    kind: str
    parameters: int
    """Those that no row above has counted."""
    macs: int
    output: list[int]
    """Shape of the tokens (or of the first tensor) that come out."""
    seconds: float
    """Mean over the quickest quarter of the forwards, whose parts add up; a slower one was disturbed somewhere."""
    share: float
    """Of the time of the whole forward."""


@dataclass(frozen=True)
class Layers(Report):
    """Every layer in order of its first call; last, as "(rest)", what is left over: residual sums, reshaping, attention
    products where a foreign model's attention holds other modules."""

    layers: list[Layer]
    seconds: float
    """Of the whole forward, watched; mean over the quickest quarter."""
    forwards: int

    def table(self) -> Table:
        rows = [
            (
                r.path,
                r.kind,
                f"{r.parameters:,}",
                count(r.macs),
                "x".join(map(str, r.output)),
                in_words(r.seconds),
                share(r.share),
            )
            for r in self.layers
        ]
        columns = ("layer", "kind", "parameters", "MACs", "output", "time", "share")
        return grid(
            f"{in_words(self.seconds)} a forward, the quickest quarter of {self.forwards}", columns, rows, texts=2
        )


def per_layer(model: nn.Module, *inputs: Any, seconds: float = 2.0, threads: int | None = None) -> Layers:
    """The table of a model's layers; for a formery model its parts, for any other the modules that hold no others.

    `inputs` as for `count_macs`. The times are those of a forward without gradients that is watched, which costs some
    microseconds a layer; `seconds` is for all forwards together.
    """
    given = as_inputs(model, inputs)
    kinds = dict(_rows(model))
    modules = dict(model.named_modules())
    counted = count_macs(model, *given)
    clock = _Clock()
    forwards: list[float] = []
    with evaluating(model), torch.inference_mode(), using_threads(threads):
        model(*given)
        with watched({path: modules[path] for path in kinds}, clock):
            end = perf_counter() + seconds
            while len(forwards) < 3 or perf_counter() < end:
                clock.begin()
                synchronize(given)
                start = perf_counter()
                model(*given)
                synchronize(given)
                forwards.append(perf_counter() - start)
    quickest = sorted(range(len(forwards)), key=forwards.__getitem__)[: max(1, len(forwards) // 4)]
    whole = statistics.fmean(forwards[n] for n in quickest)
    layers, seen = [], set[Tensor]()
    for path in clock.outputs:
        fresh = [p for p in modules[path].parameters() if p not in seen]
        seen.update(fresh)
        spent = statistics.fmean(clock.spent[path][n] for n in quickest)
        size = sum(p.numel() for p in fresh)
        layers.append(Layer(path, kinds[path], size, counted.below(path), clock.outputs[path], spent, spent / whole))
    rest = max(0.0, whole - sum(layer.seconds for layer in layers))
    left = sum(p.numel() for p in model.parameters() if p not in seen)
    undone = counted.total - sum(layer.macs for layer in layers)
    layers.append(Layer("(rest)", "-", left, undone, [], rest, rest / whole))
    return Layers(layers, whole, len(forwards))


def _rows(model: nn.Module) -> list[tuple[str, str]]:
    """(path, kind) of the modules with a row: none stands inside another."""
    if not isinstance(model, Model):
        return [(p, type(m).__name__) for p, m in model.named_modules() if p and _works(m)]
    found: list[tuple[str, str]] = []
    inside = "\0"
    for path, module in model.named_modules():
        if isinstance(module, Part) and not path.startswith(inside) and (name := _name(module)):
            inside = f"{path}."
            found.append((path, name))
    return found


def _works(module: nn.Module) -> bool:
    """Whether a module holds no others and does something in evaluation mode."""
    dropout = nn.modules.dropout._DropoutNd
    return not any(True for _ in module.children()) and not isinstance(module, nn.Identity | dropout)


def _name(part: Part) -> str | None:
    return next((name for role in ROLES if (name := registry.name_of(role, type(part)))), None)


class _Clock:
    """Time of each watched module in each forward."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self.outputs: dict[str, list[int]] = {}
        self.started: dict[str, list[float]] = {}
        self.forwards = 0

    def begin(self) -> None:
        """Another forward."""
        self.forwards += 1

    def enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        synchronize(args)
        self.started.setdefault(path, []).append(perf_counter())

    def leave(self, path: str, module: nn.Module, output: Any) -> None:
        synchronize((output,))
        start = self.started[path].pop()
        self.outputs[path] = list(output.shape) if isinstance(output, Tensor) else _first_shape(output)
        if self.started[path]:
            return  # a module that called itself: the outer call counts
        spent = self.spent.setdefault(path, [])
        if len(spent) < self.forwards:
            spent.append(0.0)
        spent[-1] += perf_counter() - start


def _first_shape(output: Any) -> list[int]:
    leaves = torch.utils._pytree.tree_leaves(output)
    return next((list(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)), [])
