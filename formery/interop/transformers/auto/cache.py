"""A stream's state in the shape that transformers' generation hands around."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ....context import Stream
from ....errors import CannotRun
from ....model import Model
from ....parts.positions.position import Position

MARGIN = 64
"""Tokens that there is room for beyond those that are needed, where nobody says how many there will be."""


NO_END = 2**62


def longest(model: Model) -> int:
    """Tokens that the model's positions reach."""
    ends = (part.longest for part in model.modules() if isinstance(part, Position) and part.longest is not None)
    return min(ends, default=NO_END)


class StreamCache(Cache):
    """Everything that the layers of `model` carry for `batch` texts.

    There is room for `capacity` tokens at first; where more come, a larger state takes its place. Nothing can be taken
    back token by token: recurrent layers keep no past.
    """

    def __init__(self, model: Model, batch: int, capacity: int) -> None:
        super().__init__(layers=[])
        self.model = model
        self.stream = model.new_state(batch, capacity)

    def __len__(self) -> int:
        return sum(1 for _ in self.stream.parts.leaves())

    def __bool__(self) -> bool:
        return True

    def ready(self, length: int) -> Stream:
        """The stream, with room for `length` more tokens."""
        needed = self.stream.total + length
        if needed > self.stream.capacity:
            larger = self.model.new_state(self.batch_size, self._capacity(needed))
            larger.restore(self.stream.snapshot())
            self.stream = larger
        return self.stream

    def _capacity(self, needed: int) -> int:
        """Twice what is needed, where positions reach that far."""
        return max(needed, min(2 * needed + MARGIN, longest(self.model)))

    @property
    def batch_size(self) -> int:
        return self.stream.seen.shape[0]

    @property
    def is_initialized(self) -> bool:
        return True

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.stream.total

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return self.stream.total > 0

    def reset(self) -> None:
        self.stream = self.model.new_state(self.batch_size, self.stream.capacity)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.stream = self.stream.select(beam_idx.to(self.stream.seen.device))

    def batch_select_indices(self, indices: Tensor) -> None:
        self.reorder_cache(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(self.batch_size).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        raise CannotRun("formery's states keep no past to go back to; generate without an assistant")

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise CannotRun("formery's layers write their states themselves; this cache is for formery's models alone")
