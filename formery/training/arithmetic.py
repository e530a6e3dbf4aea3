"""Which products this machine computes with: noted in checkpoints, so that a resumed training repeats them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..ops import linear


def chosen() -> Any:
    """The backend choice of the dense layers as plain data; None where there is no choice."""
    choose = getattr(linear, "chosen", None)
    return None if choose is None else choose()


def impose(choice: Any) -> None:
    """Take over the choice that a checkpoint notes."""
    take = getattr(linear, "impose", None)
    if take is not None and choice is not None:
        take(choice)


@contextmanager
def threads(num: int | None) -> Iterator[None]:
    """Run with `num` threads (as many as now where None), then with as many as before: sums round by their number."""
    before = torch.get_num_threads()
    if num is not None and num != before:
        torch.set_num_threads(num)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
