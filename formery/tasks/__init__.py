"""Tasks: what a model is trained and judged for, as head, loss, metrics and the data they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import registry
from ..spec import Spec, resolve_part

if TYPE_CHECKING:
    from .task import Task

INDEX = {
    "classify": "classify:Classify",
    "language": "language:Language",
}

__all__ = ["INDEX", "task_of"]


def task_of(spec: Spec | Task | Any) -> Task:
    """The task that a spec describes (`"classify"`, `{"kind": "language", "length": 512}`), or that `spec` is already.

    Data name their own task: `task_of(data.task)`. UnknownName or BadSpec names the fault and the nearest match.
    """
    if hasattr(spec, "evaluate"):
        return spec  # type: ignore[return-value]
    node = resolve_part("task", spec, "task")
    found: Task = registry.find("task", node.pop("kind"))(**node)
    return found
