"""What layers know beyond their input.

`Context` is shared by all layers of one forward. `Slot` and `Cache` are what one causal layer carries from chunk to chunk;
a `State` is the tree of them that mirrors the modules, and a `Stream` is a model's state with the count of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import CannotRun


@dataclass(frozen=True, slots=True)
class Context:
    """What every layer may know in one forward. Nothing is stored on modules."""

    causal: bool = False
    """Whether a token may not see later ones; mixers that are causal on request look here."""
    grid: tuple[int, ...] = ()
    """The grid that flattened tokens stand on: (L,), (H, W) or (T, H, W); empty where the tensor itself has the grid."""
    prefix: int = 0
    """How many tokens (class, registers) stand before the grid's in a flattened sequence."""
    positions: Tensor | None = None
    """(B, L) or (L,) place of each token in its sequence; None means 0, 1, 2, ..."""
    padding: Tensor | None = None
    """(B, L) True where a token of this chunk is padding (at either end of a row)."""
    key_padding: Tensor | None = None
    """(B, past + L) the same with the tokens that a state holds in front; None where there is no padding at all."""
    bounds: Tensor | None = None
    """(N + 1,) offsets of N sequences packed along L; then B is 1."""
    memory: Tensor | None = None
    """(B, M, C) tokens to cross-attend to."""
    memory_padding: Tensor | None = None
    """(B, M) True where a token of the memory is padding."""
    condition: Tensor | None = None
    """(B, D) what the whole forward is conditioned on: a class, a time step, a style."""
    modality: Tensor | None = None
    """(B, L) modality or task number of each token."""
    graph: Any = None
    """Edges between tokens, for mixers over graphs."""
    taps: tuple[int, ...] = ()
    """Which of a body's maps (stages of a pyramid, blocks of a stack) were asked for."""
    record: dict[str, Any] | None = None
    """Where parts note what someone asked for (balance losses, scores, keys); None where nobody did."""
    memo: dict[Any, Any] | None = None
    """What one layer worked out and later layers of this forward need alike: rotary tables, masks."""

    def but(self, **changes: Any) -> Context:
        """The same context with some entries replaced."""
        return replace(self, **changes)


    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, worked out once a forward."""
        if self.memo is None:
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


NOTHING = Context()


class Slot:
    """A tensor (B, ...) that a stream replaces as a whole: a recurrent memory, a convolution's tail."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def put(self, value: Tensor) -> None:
        """In place without gradients; by replacement with them, so that back-propagation may pass through a stream."""
        if torch.is_grad_enabled() and (value.requires_grad or self.value.requires_grad):
            self.value = value.to(self.value.dtype)
        else:
            self.value.copy_(value)

    def select(self, rows: Tensor) -> Slot:
        """The slot of the chosen streams (beams, requests that go on)."""
        return Slot(self.value[rows])

    def snapshot(self) -> Tensor:
        """What `restore` needs to come back to this moment."""
        return self.value.clone()

    def restore(self, snapshot: Tensor) -> None:
        """Return to the moment of a snapshot."""
        self.value = snapshot.clone()

    def detach(self) -> Slot:
        """The same value, cut off from the gradients of what came before."""
        return Slot(self.value.detach())

    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.value.numel() * self.value.element_size()


class Cache:
    """Tensors (B, H, L, D) that grow by tokens, in memory taken once.

    `window` tokens are kept at most where one is given: older ones are shifted out, so memory does not grow with the
    stream. `append` returns everything the new tokens may look at.
    """

    def __init__(self, keys: Tensor, values: Tensor, *, window: int | None = None) -> None:
        self.keys, self.values, self.window = keys, values, window
        self.length = 0
        """Tokens held now."""
        self.grown: tuple[Tensor, Tensor] | None = None

    @classmethod
    def empty(
        cls, like: Tensor, batch: int, heads: int, capacity: int, width: int, value_width: int | None = None,
        *, window: int | None = None,
    ) -> Cache:
        """Room for `capacity` tokens (or `window` of them, if that is less) of dtype and device as `like`."""
        room = capacity if window is None else min(capacity, window)
        keys = like.new_zeros(batch, heads, room, width)
        return cls(keys, like.new_zeros(batch, heads, room, value_width or width), window=window)

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of past and new tokens (B, H, held + L, D). CannotRun beyond the capacity.

        With gradients the past is kept by replacement, so that they pass through a stream.
        """
        new = keys.shape[2]
        if self.window is None and self.length + new > self.capacity:
            raise CannotRun(
                f"this state holds {self.capacity} tokens and {self.length + new} are needed; make it with a larger capacity"
            )
        past = self._held()
        if torch.is_grad_enabled() and (keys.requires_grad or (self.grown and self.grown[0].requires_grad)):
            together = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
            keep = min(together[0].shape[2], self.capacity)
            self.grown = tuple(t[:, :, t.shape[2] - keep :] for t in together)  # type: ignore[assignment]
            self.length = keep
            return together
        if self.grown is not None:
            self.keys[:, :, : self.length], self.values[:, :, : self.length] = self.grown
            self.grown = None
        if self.length + new <= self.capacity:
            end = self.length + new
            self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = keys, values
            self.length = end
            return self.keys[:, :, :end], self.values[:, :, :end]
        together = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        room = self.capacity
        self.keys.copy_(together[0][:, :, together[0].shape[2] - room :])
        self.values.copy_(together[1][:, :, together[1].shape[2] - room :])
        self.length = room
        return together

    def _held(self) -> tuple[Tensor, Tensor]:
        return self.grown or (self.keys[:, :, : self.length], self.values[:, :, : self.length])

    def _copy(self, keys: Tensor, values: Tensor, grown: tuple[Tensor, Tensor] | None) -> Cache:
        copy = Cache(keys, values, window=self.window)
        copy.length, copy.grown = self.length, grown
        return copy

    def select(self, rows: Tensor) -> Cache:
        """The cache of the chosen streams."""
        grown = (self.grown[0][rows], self.grown[1][rows]) if self.grown else None
        return self._copy(self.keys[rows], self.values[rows], grown)

    def snapshot(self) -> tuple[int, tuple[Tensor, Tensor]]:
        """What `restore` needs to come back to this moment (without a window, the count alone would do)."""
        keys, values = self._held()
        return self.length, (keys.clone(), values.clone())

    def restore(self, snapshot: tuple[int, tuple[Tensor, Tensor]]) -> None:
        """Return to the moment of a snapshot."""
        self.length, (keys, values) = snapshot
        self.grown = None
        with torch.no_grad():
            self.keys[:, :, : self.length], self.values[:, :, : self.length] = keys, values

    def detach(self) -> Cache:
        """The same tokens, cut off from the gradients of what came before."""
        grown = (self.grown[0].detach(), self.grown[1].detach()) if self.grown else None
        return self._copy(self.keys.detach(), self.values.detach(), grown)

    def nbytes(self) -> int:
        """Bytes that it holds, room for tokens to come included."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values))


Leaf = Slot | Cache


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

    def cache(self, name: str) -> Cache:
        """The cache called `name`."""
        leaf = self.entries[name]
        assert isinstance(leaf, Cache)
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


@dataclass
class Stream:
    """The state of a batch of streams: their layers' states, and how many tokens each row has seen."""

    parts: State
    capacity: int
    seen: Tensor
    """(B,) tokens of each row so far, padding not counted: positions go on from here."""
    total: int = 0
    """Tokens given so far, padding counted."""
    padding: Tensor | None = None
    """(B, total) where the tokens given so far were padding; None where none was."""
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, parts: State, batch: int, capacity: int, device: Any = None) -> Stream:
        """Streams that have seen nothing."""
        return cls(parts, capacity, torch.zeros(batch, dtype=torch.long, device=device))

    def context(self, ctx: Context, length: int) -> Context:
        """The context of the next `length` tokens: positions and past padding filled in, counts moved on."""
        if self.total + length > self.capacity:
            raise CannotRun(
                f"this state holds {self.capacity} tokens and {self.total + length} are needed; make it with a larger capacity"
            )
        batch, device = self.seen.shape[0], self.seen.device
        new = ctx.padding if ctx.padding is not None else torch.zeros(batch, length, dtype=torch.bool, device=device)
        key_padding = None
        if ctx.padding is not None or self.padding is not None:
            past = torch.zeros(batch, self.total, dtype=torch.bool, device=device) if self.padding is None else self.padding
            key_padding = torch.cat([past, new], dim=1)
        positions = ctx.positions
        if positions is None:
            steps = (~new).long().cumsum(1) - 1
            positions = self.seen[:, None] + steps.clamp(min=0)
        self.seen = self.seen + (~new).sum(1)
        self.total += length
        self.padding = key_padding
        return ctx.but(positions=positions, key_padding=key_padding)

    def select(self, rows: Tensor) -> Stream:
        """The chosen streams."""
        padding = None if self.padding is None else self.padding[rows]
        return replace(self, parts=self.parts.select(rows), seen=self.seen[rows], padding=padding)

    def detach(self) -> Stream:
        """Cut off from earlier gradients."""
        return replace(self, parts=self.parts.detach())

    def snapshot(self) -> tuple[Any, ...]:
        """Everything that `restore` needs."""
        return self.parts.snapshot(), self.seen.clone(), self.total, self.padding

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Return to the moment of a snapshot."""
        parts, seen, self.total, self.padding = snapshot
        self.seen = seen.clone()
        self.parts.restore(parts)

    def nbytes(self) -> int:
        """Bytes that the layers' states hold."""
        return self.parts.nbytes()
