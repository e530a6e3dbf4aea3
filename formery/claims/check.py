"""What a check is, and what it returns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

Progress = Callable[[str], None]
"""Told, in a few words, what a check is doing now."""


@dataclass(frozen=True)
class Measured:
    """What a check found."""

    value: dict[str, Any]
    """The figures, plain data."""
    passed: bool
    """Whether they meet the claim's bar."""
    said: str
    """The figures in one line."""
    published: str = ""
    """What the paper or its release says of the same; nothing that anybody measured here."""
    note: str = ""
    """What a reader should know: the likely reason where the bar is missed, what the check leaves out."""
    seconds: float = 0.0


Check = Callable[..., Measured]
"""check(seed=0, progress=None) -> Measured"""


def check(function: Callable[[int, Progress], Measured]) -> Check:
    """A check: torch's generator starts from `seed` and is put back afterwards, and the time is taken."""

    @wraps(function)
    def checked(seed: int = 0, progress: Progress | None = None) -> Measured:
        import torch

        start = time.perf_counter()
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(seed)
            found = function(seed, progress or silent)
        return replace(found, seconds=time.perf_counter() - start)

    return checked


def named(name: str, progress: Progress) -> Progress:
    """`progress` with what is at work in front of what it is told."""
    return lambda text: progress(f"{name}: {text}")


def silent(text: str) -> None:
    """Progress that nobody looks at."""
