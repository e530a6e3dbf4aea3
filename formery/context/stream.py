"""A model's state with the count of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import CannotRun
from .shared import Context
from .state import State


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
    broken: bool = False
    """Whether a forward broke off when some layers had read their input and others had not."""

    @classmethod
    def start(cls, parts: State, batch: int, capacity: int, device: Any = None) -> Stream:
        """Streams that have seen nothing."""
        return cls(parts, capacity, torch.zeros(batch, dtype=torch.long, device=device))

    def context(self, ctx: Context, length: int) -> Context:
        """The context of the next `length` tokens: positions and past padding filled in, counts moved on.

        CannotRun beyond the capacity, for a broken stream, and for packed sequences: they begin and end in one forward.
        """
        if self.broken:
            raise CannotRun("this stream broke off amid its layers; restore a snapshot of it, or begin a new one")
        if ctx.bounds is not None:
            raise CannotRun("packed sequences do not stream; give each a row, with padding where they differ in length")
        end = self.total + length
        if end > self.capacity:
            raise CannotRun(
                f"this state holds {self.capacity} tokens, {end} are needed; make it with a larger capacity"
            )
        batch, device = self.seen.shape[0], self.seen.device
        if ctx.padding is None:
            steps: Tensor = torch.arange(length, device=device)
            new = torch.tensor(length, device=device)
        else:
            steps = ((~ctx.padding).cumsum(1) - 1).clamp(min=0)
            new = (~ctx.padding).sum(1)
        if ctx.padding is not None or self.padding is not None:
            none = torch.zeros(batch, end, dtype=torch.bool, device=device)
            past = none[:, : self.total] if self.padding is None else self.padding
            self.padding = torch.cat([past, none[:, self.total :] if ctx.padding is None else ctx.padding], dim=1)
        positions = self.seen[:, None] + steps if ctx.positions is None else ctx.positions
        self.seen, self.total = self.seen + new, end
        return ctx.but(positions=positions, key_padding=self.padding)

    def counts(self) -> tuple[Tensor, int, Tensor | None]:
        """What `context` moves on: what `recount` needs to take a refused input back."""
        return self.seen, self.total, self.padding

    def recount(self, counts: tuple[Tensor, int, Tensor | None]) -> None:
        """Return to earlier counts, the layers' states left as they are."""
        self.seen, self.total, self.padding = counts

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
        self.seen, self.broken = seen.clone(), False
        self.parts.restore(parts)

    def nbytes(self) -> int:
        """Bytes that the layers' states hold."""
        return self.parts.nbytes()
