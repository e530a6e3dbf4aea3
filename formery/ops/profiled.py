"""A name in profiles for what an operation does, so that a scan made of plain products is told from other products."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch.autograd.profiler import record_function

P = ParamSpec("P")
R = TypeVar("R")

SCAN = "formery::scan"
"""Recurrences along the sequence, whatever they are made of."""


def profiled(region: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Put a function's work into the region of that name in torch's profiles; without a profiler it is just called."""

    def named(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling() or not torch._C._autograd._profiler_enabled():
                return function(*args, **kwargs)
            with record_function(region):
                return function(*args, **kwargs)

        return call

    return named
