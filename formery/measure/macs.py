"""Multiply-accumulates of a model's forward, attention products and scans included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..context import NOTHING, Cache, Context, Leaf, State, Window
from ..parts.mixers.mixer import Mixer
from .inputs import Subject, as_inputs, as_model
from .products import is_product, macs_of
from .report import Report, count, grid, share
from .running import evaluating
from .walk import watched

if TYPE_CHECKING:
    from rich.table import Table

DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class MacReport(Report):
    """Multiply-accumulates of one forward of a whole batch.

    A mixer that declares its own (`Mixer.macs`: attention, recurrences) counts by that formula beside its dense layers
    and convolutions, whatever form computes it; `total` is the sum. `executed` counts instead the products of matrices
    that ran: a recurrence in chunks does more of them than its formula. Both count every pair of causal attention.
    """

    total: int
    executed: int
    shapes: list[list[int]]
    """Of the inputs."""
    nodes: dict[str, int]
    """Of each top-level node (stem, body, head), then of the model itself (""), if it does any."""
    kinds: dict[str, int]
    """By linear, convolution, attention, product (other products of matrices) and mixer (declared by mixers)."""
    modules: dict[str, int]
    """Of every module that does any itself, not counting the modules inside it, by path."""

    @property
    def per_item(self) -> int:
        """Of one item of the batch."""
        return self.total // max(1, self.shapes[0][0] if self.shapes and self.shapes[0] else 1)

    def below(self, path: str) -> int:
        """Of a module with everything inside it."""
        return sum(n for p, n in self.modules.items() if p == path or not path or p.startswith(f"{path}."))

    def table(self) -> Table:
        rows = [(name or "(model)", f"{n:,}", share(n / max(1, self.total))) for name, n in self.nodes.items()]
        rows += [(f"{kind} products", f"{n:,}", share(n / max(1, self.total))) for kind, n in self.kinds.items()]
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        return grid(f"{count(self.total)} MACs for {shapes}", ("node", "MACs", "share"), rows)


def count_macs(subject: Subject, *inputs: Any, state: Any = None) -> MacReport:
    """Count one forward of a model (or of a name or spec, then without values on the meta device, at any size).

    `inputs` are tensors, or the shape of one: `count_macs(model, 1, 3, 224, 224)`; nothing for a formery model's own
    nominal size. `state` is a formery model's stream, which moves on. The model runs once, without gradients.
    """
    model = as_model(subject)
    given = as_inputs(model, inputs)
    counter = _Counter(model)
    kwargs = {} if state is None else {"state": state}
    watching = watched(dict(model.named_modules()), counter)
    with evaluating(model), torch.no_grad(), watching, counter:
        model(*given, **kwargs)
    nodes = {name: 0 for name, _ in model.named_children()}
    for path, number in counter.modules.items():
        name = path.partition(".")[0]
        nodes[name] = nodes.get(name, 0) + number
    shapes = [list(x.shape) for x in given if isinstance(x, Tensor)]
    return MacReport(sum(counter.modules.values()), counter.executed, shapes, nodes, counter.kinds, counter.modules)


class _Counter(TorchDispatchMode):
    """Sees every operator that runs, and which module asked for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.executed = 0
        self.kinds: dict[str, int] = {}
        self.modules: dict[str, int] = {}
        self.paths: list[str] = []
        self.dense = 0
        """Dense layers and convolutions at work now."""
        self.weights = {m.weight.untyped_storage()._cdata for m in model.modules() if isinstance(m, DENSE)}
        self.declared: list[tuple[str, int]] = []
        """The outermost mixer at work now that declares its own count, and that count."""

    def enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.paths.append(path)
        self.dense += isinstance(module, DENSE)
        if isinstance(module, Mixer) and type(module).macs is not Mixer.macs and not self.declared:
            self.declared.append((path, _declared(module, *args, **kwargs)))

    def leave(self, path: str, module: nn.Module, output: Any) -> None:
        self.paths.pop()
        self.dense -= isinstance(module, DENSE)
        if self.declared and self.declared[0][0] == path and path not in self.paths:
            self._note(path, "mixer", self.declared.pop()[1])

    def _note(self, path: str, kind: str, number: int) -> None:
        self.modules[path] = self.modules.get(path, 0) + number
        self.kinds[kind] = self.kinds.get(kind, 0) + number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and not is_product(func):
            with self:  # in this mode operators come here before they are taken apart
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        found = macs_of(func, args, kwargs, out)
        if found is not None:
            kind, number = found
            self.executed += number
            dense = self.dense > 0 or any(
                isinstance(a, Tensor) and a.untyped_storage()._cdata in self.weights for a in args
            )
            if dense or not self.declared:
                self._note(
                    self.paths[-1] if self.paths else "", "linear" if dense and kind == "product" else kind, number
                )
        return out


def _declared(
    mixer: Mixer, x: Tensor, ctx: Context = NOTHING, state: State | None = None, *args: Any, **kwargs: Any
) -> int:
    """What `mixer` declares for this call of a whole batch: packed sequences one by one, others after what was seen."""
    if ctx.bounds is not None and not x.is_meta:
        return sum(mixer.macs(length) for length in ctx.bounds.diff().tolist())
    past = 0 if state is None else max((_held(leaf) for _, leaf in state.leaves()), default=0)
    return int(x.shape[0]) * mixer.macs(prod(x.shape[1:-1]), past)


def _held(leaf: Leaf) -> int:
    """Tokens that new ones may look at."""
    if isinstance(leaf, Cache):
        return leaf.length
    if isinstance(leaf, Window):
        return min(leaf.count, leaf.room) if isinstance(leaf.count, int) else leaf.room
    return 0
