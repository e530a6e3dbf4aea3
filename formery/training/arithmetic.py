"""Which products this machine computes with: noted in checkpoints, so that a resumed training repeats them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..ops.linear import chosen, imposed

__all__ = ["chosen", "repeated"]


@contextmanager
def repeated(threads: int | None, choice: dict[str, Any] | None) -> Iterator[None]:
    """Compute with as many threads and by the products that a checkpoint notes; as before where they are None.

    Sums round by the number of threads, products by the library that works them out.
    """
    before = torch.get_num_threads()
    if threads is not None and threads != before:
        torch.set_num_threads(threads)
    try:
        with imposed(choice):
            yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
