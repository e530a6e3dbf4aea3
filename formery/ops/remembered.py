"""What follows from tensors that seldom change, worked out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from .forms import plain

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `work` makes of a weight, or of several, kept until one of them changes.

    A change is seen by the tensor itself, its version, place, shape and dtype; one made behind torch's back (through
    `.data` or numpy) is not. Copies and pickles are empty.
    """

    def __init__(self, work: Callable[..., T]) -> None:
        self.work = work
        self.drop()

    def drop(self) -> None:
        """Give the memory back."""
        self._key: tuple[object, ...] | None = None
        self._weight: Tensor | None = None
        self._others: tuple[Tensor, ...] = ()  # held, so that none of their ids is given to another tensor
        self._made: T | None = None

    def of(self, weight: Tensor, *others: Tensor) -> T | None:
        """What was made of the weights; None with an inference tensor, whose changes cannot be seen."""
        if weight.is_inference():
            return None
        key: tuple[object, ...] = (weight._version, weight.data_ptr(), weight.shape, weight.stride(), weight.dtype)
        if others:
            if any(other.is_inference() for other in others):
                return None
            key += tuple((id(w), w._version, w.data_ptr(), w.shape, w.stride(), w.dtype) for w in others)
        if weight is not self._weight or key != self._key:
            with torch.inference_mode(False), torch.no_grad():  # what is kept serves outside of that mode as well
                self._made = self.work(weight.detach(), *(other.detach() for other in others))
            self._weight, self._others, self._key = weight, others, key
        return self._made

    def __call__(self, weight: Tensor, *others: Tensor) -> T:
        """The same of any tensors: worked out on the spot where gradients pass, or where somebody watches."""
        if not plain(weight):
            return self.work(weight, *others)
        made = self.of(weight, *others)
        return self.work(weight, *others) if made is None else made

    def __reduce__(self) -> tuple[type[Remembered[T]], tuple[Callable[..., T]]]:
        return Remembered, (self.work,)
