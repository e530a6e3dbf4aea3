"""Keys and values that grow by tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CannotRun
from .slot import locked


class Seen(NamedTuple):
    """Everything that new tokens may look at, the new ones last."""

    keys: Tensor
    """(B, H, past + L, D)"""
    values: Tensor
    """(B, H, past + L, D of the values)"""
    places: Tensor | None = None
    """(B or 1, past + L) place of each key in its row, -1 where there is none; None where they are 0, 1, 2, ..., or
    where a single new token may see them all."""


def follows(*tensors: Tensor) -> bool:
    """Whether gradients pass or have passed, so that tensors are kept by replacement and not written in place."""
    return any(tensor.requires_grad for tensor in tensors)


class Cache:
    """Keys and values (B, H, L, D) of all tokens so far, padding included, in memory taken once."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0
        """Tokens held now."""
        self.grown: tuple[Tensor, Tensor] | None = None
        """What is held, in place of the memory, where gradients pass through it."""

    @classmethod
    def empty(
        cls, like: Tensor, batch: int, heads: int, capacity: int, width: int, value_width: int | None = None
    ) -> Cache:
        """Room for `capacity` tokens, in the dtype and on the device of `like`."""
        keys = like.new_empty(batch, heads, capacity, width)
        return cls(keys, like.new_empty(batch, heads, capacity, value_width or width))

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor, padding: Tensor | None = None) -> Seen:
        """Past and new tokens; what was padding is the context's to know. CannotRun beyond the capacity."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise CannotRun(
                f"this state holds {self.capacity} tokens, {end} are needed; make it with a larger capacity"
            )
        if follows(keys, values, *(self.grown or ())):
            past = self._held()
            self.grown = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
            self.length = end
            return Seen(*self.grown)
        if locked(self.keys):
            self.keys, self.values = self.keys.clone(), self.values.clone()
        if self.grown is not None:
            self.keys[:, :, : self.length], self.values[:, :, : self.length] = self.grown
            self.grown = None
        self.keys[:, :, self.length : end], self.values[:, :, self.length : end] = keys, values
        self.length = end
        return Seen(*self._held())

    def _held(self) -> tuple[Tensor, Tensor]:
        return self.grown or (self.keys[:, :, : self.length], self.values[:, :, : self.length])

    def _copy(self, keys: Tensor, values: Tensor, grown: tuple[Tensor, Tensor] | None) -> Cache:
        copy = Cache(keys, values)
        copy.length, copy.grown = self.length, grown
        return copy

    def select(self, rows: Tensor) -> Cache:
        """The cache of the chosen streams."""
        grown = (self.grown[0][rows], self.grown[1][rows]) if self.grown else None
        return self._copy(self.keys[rows], self.values[rows], grown)

    def snapshot(self) -> tuple[Tensor, Tensor]:
        """What `restore` needs to come back to this moment."""
        keys, values = self._held()
        return keys.clone(), values.clone()

    def restore(self, snapshot: tuple[Tensor, Tensor]) -> None:
        """Return to the moment of a snapshot."""
        keys, values = snapshot
        self.length = keys.shape[2]
        if follows(keys, values):
            self.grown = keys, values
            return
        self.grown = None
        self.keys[:, :, : self.length], self.values[:, :, : self.length] = keys, values

    def detach(self) -> Cache:
        """The same tokens, cut off from the gradients of what came before."""
        grown = (self.grown[0].detach(), self.grown[1].detach()) if self.grown else None
        return self._copy(self.keys.detach(), self.values.detach(), grown)

    def nbytes(self) -> int:
        """Bytes that it holds, room for tokens to come included."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.keys, self.values))
