"""Reparameterize: parallel branches that helped training become the one layer that they are in evaluation."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from torch import nn

from ..errors import CannotRewrite
from ..parts.mergeable import Mergeable, is_learning
from ..parts.part import Part
from .rewrite import Exact, Plan, Step, parsed
from .surgery import module_at


class Merge(Step):
    """The branches of one part become one layer."""

    part: str


STEP: TypeAdapter[Merge] = TypeAdapter(Merge)


class Reparameterize(Exact):
    """Merges the parallel branches of every part that has some; outputs in evaluation stay equal.

    Branches come with batch norms of their own, whose running statistics are used up by it, so the model has to be in
    evaluation mode. What stands around the part (its norm, a layer scale) is for `fold`, best afterwards: in front of
    branches nothing can be folded into the one layer that is not there yet.
    """

    kind = "reparameterize"

    @classmethod
    def decide(cls, model: nn.Module, data: Any = None) -> Plan:  # type: ignore[override]  # it has no options
        """Which parts have branches. Looks at structure alone; `data` is not needed."""
        cls.in_order(model)
        return cls.plan({}, [Merge(part=path) for path, _ in branched(model)], [])

    @classmethod
    def why_not(cls, model: nn.Module) -> str | None:
        return None if branched(model) else "no part of it has parallel branches to merge"

    @classmethod
    def steps_of(cls, plan: Plan) -> list[Any]:
        return parsed(cls.kind, STEP, plan["steps"])

    @classmethod
    def perform(cls, model: nn.Module, plan: Plan) -> nn.Module:
        for path, _ in branched(model):
            if is_learning(module_at(model, path)):
                raise CannotRewrite(f"{path} is in training mode, and its branches merge as in evaluation; call eval()")
        return super().perform(model, plan)

    @classmethod
    def do(cls, model: nn.Module, steps: list[Merge]) -> None:
        for step in steps:
            part = module_at(model, step.part)
            if not isinstance(part, Part) or not isinstance(part, Mergeable) or not part.branched:
                raise CannotRewrite(f"{step.part} has no branches to merge (any more); was the plan edited?")
            part.reparameterize()


def branched(model: nn.Module) -> list[tuple[str, Mergeable]]:
    """(path, part) of all that have branches."""
    parts = ((path, m) for path, m in model.named_modules() if isinstance(m, Part))
    return [(path, part) for path, part in parts if isinstance(part, Mergeable) and part.branched]
