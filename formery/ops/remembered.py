"""What follows from one tensor, worked out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from .forms import watched

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `work` makes of a weight, kept until the weight changes.

    A change is seen by the tensor itself, its version, place, shape and dtype; one made behind torch's back (through
    `.data` or numpy) is not. Copies and pickles are empty.
    """

    def __init__(self, work: Callable[[Tensor], T]) -> None:
        self.work = work
        self.drop()

    def drop(self) -> None:
        """Give the memory back."""
        self._key: tuple[object, ...] | None = None
        self._weight: Tensor | None = None
        self._made: T | None = None

    def of(self, weight: Tensor) -> T | None:
        """What was made of `weight`; None for an inference tensor, whose changes cannot be seen."""
        if weight.is_inference():
            return None
        key = (weight._version, weight.data_ptr(), weight.shape, weight.stride(), weight.dtype)
        if weight is not self._weight or key != self._key:
            self._made = self.work(weight.detach())
            self._weight, self._key = weight, key
        return self._made

    def __call__(self, weight: Tensor) -> T:
        """The same of any tensor: worked out on the spot where gradients pass, or where somebody watches."""
        if torch.is_grad_enabled() or not weight.is_cpu or watched() or torch._C._len_torch_dispatch_stack() > 0:
            return self.work(weight)
        made = self.of(weight)
        return self.work(weight) if made is None else made

    def __reduce__(self) -> tuple[type[Remembered[T]], tuple[Callable[[Tensor], T]]]:
        return Remembered, (self.work,)
