"""How many parameters a model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .report import Report, count, grid, share, size

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Parameters(Report):
    """What is stored in a model's parameters; a tensor that several places share counts once, where it stands first."""

    total: int
    trainable: int
    """Those that a gradient is asked for."""
    bytes: int
    """Of the stored parameters, shared ones once."""
    buffer_bytes: int
    """Of the buffers that are saved with the model."""
    nodes: dict[str, int]
    """Parameters of each top-level node (stem, body, head), then of the model itself (""), if it has any."""

    def table(self) -> Table:
        rows = [(name or "(model)", f"{n:,}", share(n / max(1, self.total))) for name, n in self.nodes.items()]
        rows.append(("all", f"{self.total:,}", size(self.bytes)))
        return grid(f"{count(self.total)} parameters", ("node", "parameters", "share"), rows)


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of any torch model, on any device, the meta device included."""
    nodes: dict[str, int] = {name: 0 for name, _ in model.named_children()}
    seen: set[Tensor] = set()
    total = trainable = stored = 0
    for path, parameter in model.named_parameters(remove_duplicate=False):
        if parameter in seen:
            continue
        seen.add(parameter)
        node = path.partition(".")[0] if "." in path else ""
        nodes[node] = nodes.get(node, 0) + parameter.numel()
        total += parameter.numel()
        trainable += parameter.numel() * parameter.requires_grad
        stored += parameter.numel() * parameter.element_size()
    buffers = sum(t.numel() * t.element_size() for t in _saved_buffers(model))
    return Parameters(total, trainable, stored, buffers, nodes)


def _saved_buffers(model: nn.Module) -> list[Tensor]:
    saved = model.state_dict(keep_vars=True)
    return list({t for t in saved.values() if isinstance(t, Tensor) and not isinstance(t, nn.Parameter)})
