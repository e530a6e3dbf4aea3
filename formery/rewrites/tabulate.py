"""Tabulate: biases of attention that a network makes of offsets become the table of what it makes of them.

For one window the network's output is the same at every forward (CrossFormer, arXiv 2108.00154, section 3.2.2: it can
be replaced by a table once trained). The table stands for that window; another one's is resized from it, where the
network would have made it anew.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from torch import nn

from ..errors import CannotRewrite
from ..parts.positions.log_offsets import LogOffsets
from ..parts.positions.offset_mlp import OffsetMLP
from ..parts.positions.relative_table import RelativeTable
from .rewrite import Exact, Plan, Step, parsed
from .surgery import module_at, replace

NETWORKS = (LogOffsets, OffsetMLP)


class Tabled(Step):
    """One bias becomes a table."""

    do: Literal["bias_into_table"] = "bias_into_table"
    position: str


STEP: TypeAdapter[Tabled] = TypeAdapter(Tabled)


class Tabulate(Exact):
    """Replaces networks that make attention's biases from offsets by tables of their outputs; outputs stay equal."""

    kind = "tabulate"

    @classmethod
    def decide(cls, model: nn.Module, data: Any = None) -> Plan:  # type: ignore[override]  # it has no options
        """Which biases come from networks. Looks at structure alone; `data` is not needed."""
        cls.in_order(model)
        return cls.plan({}, [Tabled(position=path) for path in _networks(model)], [])

    @classmethod
    def why_not(cls, model: nn.Module) -> str | None:
        return None if _networks(model) else "no bias of its attention comes from a network"

    @classmethod
    def steps_of(cls, plan: Plan) -> list[Any]:
        return parsed(cls.kind, STEP, plan["steps"])

    @classmethod
    def do(cls, model: nn.Module, steps: list[Tabled]) -> None:
        for step in steps:
            network = module_at(model, step.position)
            if not isinstance(network, NETWORKS):
                raise CannotRewrite(
                    f"{step.position} is a {type(network).__name__}, no network that makes biases; was the plan edited?"
                )
            like = next(network.parameters())
            with torch.device(like.device):
                table = RelativeTable(network.heads, grid=network.grid).to(like.dtype).train(network.training)
            with torch.no_grad():
                table.table.copy_(network.rows(network.grid))
            table.table.requires_grad_(like.requires_grad)
            replace(model, step.position, table)


def _networks(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, NETWORKS)]
