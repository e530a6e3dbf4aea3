"""A tensor that a stream replaces as a whole."""

from __future__ import annotations

import torch
from torch import Tensor


def locked(tensor: Tensor) -> bool:
    """Whether a tensor was made in inference mode and may not be written outside of it."""
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


class Slot:
    """A tensor (B, ...) that a stream replaces as a whole: a recurrent memory, a convolution's tail."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def put(self, value: Tensor) -> None:
        """In place without gradients; by replacement where they pass or have passed, so that streams can be learned."""
        if value is self.value:
            return  # written there already
        if value.requires_grad or self.value.requires_grad or locked(self.value):
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
