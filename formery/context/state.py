"""The tree of what a model's layers carry from chunk to chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .caches import Cache
from .slot import Slot
from .window import Window

Leaf = Slot | Cache | Window


class State:
    """A tree of slots and caches with the names of the modules that own them."""

    def __init__(self, **entries: Leaf | State) -> None:
        self.entries: dict[str, Leaf | State] = dict(entries)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def slot(self, name: str) -> Slot:
        """The slot called `name`."""
        leaf = self.entries[name]
        assert isinstance(leaf, Slot)
        return leaf

    def cache(self, name: str) -> Cache | Window:
        """The cache (of all tokens, or of a window) called `name`."""
        leaf = self.entries[name]
        assert isinstance(leaf, Cache | Window)
        return leaf

    def under(self, path: str) -> State | None:
        """The state of the module at a dotted path below this one; None where it carries none."""
        node: State | Leaf | None = self
        for step in path.split("."):
            if not isinstance(node, State):
                return None
            node = node.entries.get(step)
        return node if isinstance(node, State) else None

    def put(self, path: str, state: State) -> None:
        """Hang `state` at a dotted path."""
        node = self
        *steps, last = path.split(".")
        for step in steps:
            child = node.entries.setdefault(step, State())
            assert isinstance(child, State)
            node = child
        node.entries[last] = state

    def leaves(self, path: str = "") -> Iterator[tuple[str, Leaf]]:
        """(dotted path, leaf) of every slot and cache."""
        for name, entry in self.entries.items():
            here = f"{path}.{name}" if path else name
            if isinstance(entry, State):
                yield from entry.leaves(here)
            else:
                yield here, entry

    def _each(self, method: str, *args: Any) -> State:
        return State(
            **{
                name: entry._each(method, *args) if isinstance(entry, State) else getattr(entry, method)(*args)
                for name, entry in self.entries.items()
            }
        )

    def select(self, rows: Tensor) -> State:
        """The state of the chosen streams."""
        return self._each("select", rows)

    def detach(self) -> State:
        """Cut off from earlier gradients: truncated back-propagation through time."""
        return self._each("detach")

    def snapshot(self) -> dict[str, Any]:
        """Everything that `restore` needs, by dotted path."""
        return {path: leaf.snapshot() for path, leaf in self.leaves()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Return to the moment of a snapshot."""
        for path, leaf in self.leaves():
            leaf.restore(snapshot[path])

    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(leaf.nbytes() for _, leaf in self.leaves())
