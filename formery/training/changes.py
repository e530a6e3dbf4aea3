"""Changes of a run's plain options, by dotted paths."""

from __future__ import annotations

from typing import Any

from ..errors import BadSpec
from ..spec import Node


def put(node: Node, path: str, value: Any) -> None:
    """Set what stands at a dotted path of plain data; BadSpec where a step has nothing inside it.

    A name where a mapping may stand (`augment: deit`) becomes one that is `like` it.
    """
    *steps, last = path.split(".")
    for step in steps:
        inside = node.setdefault(step, {})
        if step == "augment" and isinstance(inside, str):
            inside = node[step] = {"like": inside}
        if not isinstance(inside, dict):
            raise BadSpec(f"override {path!r}: {step} has nothing inside it")
        node = inside
    node[last] = value
