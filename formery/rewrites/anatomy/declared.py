"""What a part declares of itself, as far as it is (still) there."""

from __future__ import annotations

from torch import nn

from ...parts.part import Part


def present(part: Part, names: tuple[str, ...], *, forward: bool) -> tuple[str, ...]:
    """Declared readers or writers; a norm that was folded away (None now) hands its place to its neighbour."""
    near = dict(part.neighbours) if forward else {second: first for first, second in part.neighbours}
    found = []
    for name in names:
        here: str | None = name
        while here is not None and not is_there(part, here):
            here = near.get(here)
        if here is None:
            return ()
        found.append(here)
    return tuple(found)


def is_there(module: nn.Module, name: str) -> bool:
    """Whether a module stands at `name`, and not just the identity."""
    part: nn.Module | None = module
    for step in name.split("."):
        part = getattr(part, step, None)
    return isinstance(part, nn.Module) and not isinstance(part, nn.Identity)
