"""Keys and values of the last tokens only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import CannotRun
from .caches import Seen, follows


class Window:
    """Keys and values (B, H, W, D) of each row's last W tokens, padding not counted: memory that does not grow.

    The token at place p of its row is kept at p mod W, so that a new one takes the place of the oldest and nothing is
    moved. `count` is how many tokens the rows have had: one number while no row had padding, else one a row (B,).
    """

    def __init__(self, keys: Tensor, values: Tensor, size: int, count: int | Tensor = 0) -> None:
        self.keys, self.values, self.size, self.count = keys, values, size, count

    @classmethod
    def empty(
        cls,
        like: Tensor,
        batch: int,
        heads: int,
        capacity: int,
        width: int,
        value_width: int | None = None,
        *,
        size: int,
    ) -> Window:
        """Room for `size` tokens (or `capacity` of them, if that is less), in the dtype and on the device of `like`."""
        keys = like.new_zeros(batch, heads, min(capacity, size), width)
        return cls(keys, like.new_zeros(batch, heads, min(capacity, size), value_width or width), size)

    @property
    def room(self) -> int:
        """Tokens that there is memory for."""
        return self.keys.shape[2]

    def append(self, keys: Tensor, values: Tensor, padding: Tensor | None = None) -> Seen:
        """The last tokens and the new ones, of which `padding` (B, L) are none. CannotRun beyond a capacity below W."""
        if padding is None and not isinstance(self.count, Tensor):
            return self._append_even(keys, values, self.count)
        return self._append_ragged(keys, values, padding)

    def _append_even(self, keys: Tensor, values: Tensor, count: int) -> Seen:
        """All rows have as many tokens."""
        end = count + keys.shape[2]
        self._check(end)
        held = min(count, self.room)
        if keys.shape[2] == 1 and not follows(keys, values, self.keys):
            at = count % self.room
            self.keys[:, :, at : at + 1], self.values[:, :, at : at + 1] = keys, values
            self.count, held = end, min(end, self.room)
            return Seen(self.keys[:, :, :held], self.values[:, :, :held])
        seen = Seen(keys, values)
        if held:
            places = torch.cat([self._places(count)[:held], torch.arange(count, end, device=keys.device)])
            seen = self._together(held, keys, values, places[None])
        kept = slice(max(0, end - count - self.room), None)  # of the new ones
        slots = torch.arange(count, end, device=keys.device)[kept] % self.room
        if follows(keys, values, self.keys):
            self.keys = self.keys.index_copy(2, slots, keys[:, :, kept].to(self.keys.dtype))
            self.values = self.values.index_copy(2, slots, values[:, :, kept].to(self.values.dtype))
        else:
            self.keys.index_copy_(2, slots, keys[:, :, kept].to(self.keys.dtype))
            self.values.index_copy_(2, slots, values[:, :, kept].to(self.values.dtype))
        self.count = end
        return seen

    def _append_ragged(self, keys: Tensor, values: Tensor, padding: Tensor | None) -> Seen:
        """Rows differ in how many of their tokens are real."""
        batch, length = keys.shape[0], keys.shape[2]
        count = self.count
        if not isinstance(count, Tensor):
            count = torch.full((batch,), count, device=keys.device)
        real = torch.ones(batch, length, dtype=torch.bool, device=keys.device) if padding is None else ~padding
        places = (count[:, None] + real.cumsum(1) - 1).masked_fill(~real, -1)
        end = count + real.sum(1)
        self._check(int(end.max()))
        seen = self._together(self.room, keys, values, torch.cat([self._places(count[:, None]), places], dim=1))
        rows, columns = (real & (places >= end[:, None] - self.room)).nonzero(as_tuple=True)
        at = rows, slice(None), places[rows, columns] % self.room
        if follows(keys, values, self.keys):
            self.keys, self.values = self.keys.clone(), self.values.clone()
        self.keys[at] = keys[rows, :, columns].to(self.keys.dtype)
        self.values[at] = values[rows, :, columns].to(self.values.dtype)
        self.count = end
        return seen

    def _check(self, end: int) -> None:
        if end > self.room and self.room < self.size:
            raise CannotRun(f"this state holds {self.room} tokens, {end} are needed; make it with a larger capacity")

    def _places(self, count: int | Tensor) -> Tensor:
        """(room,), or (B, room) for counts (B, 1): the place of the token that each slot holds, -1 where none."""
        slots = torch.arange(self.room, device=self.keys.device)
        return (count - 1 - (count - 1 - slots) % self.room).clamp(min=-1)

    def _together(self, held: int, keys: Tensor, values: Tensor, places: Tensor) -> Seen:
        past = self.keys[:, :, :held], self.values[:, :, :held]
        return Seen(torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2), places)

    def select(self, rows: Tensor) -> Window:
        """The window of the chosen streams."""
        count = self.count[rows] if isinstance(self.count, Tensor) else self.count
        return Window(self.keys[rows], self.values[rows], self.size, count)

    def snapshot(self) -> tuple[Tensor, Tensor, int | Tensor]:
        """What `restore` needs to come back to this moment."""
        return self.keys.clone(), self.values.clone(), self.count

    def restore(self, snapshot: tuple[Tensor, Tensor, int | Tensor]) -> None:
        """Return to the moment of a snapshot, also one of a smaller capacity."""
        keys, values, self.count = snapshot
        more = (0, 0, 0, self.room - keys.shape[2])  # below its capacity no token has taken another's place
        self.keys, self.values = (F.pad(t, more) if more[-1] else t.clone() for t in (keys, values))

    def detach(self) -> Window:
        """The same tokens, cut off from the gradients of what came before."""
        return Window(self.keys.detach(), self.values.detach(), self.size, self.count)

    def nbytes(self) -> int:
        """Bytes that it holds."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.keys, self.values))
