"""Which kinds of operators a forward's time goes to, by torch's profiler: self times, so that nothing counts twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..ops.profiled import SCAN
from .memory import quiet

CLASSES = ("products", "attention", "convolution", "scan", "norm", "elementwise", "other")
"""`scan` is all that a recurrence along the sequence does, products in it included."""

WORDS: dict[str, tuple[str, ...]] = {
    "attention": ("scaled_dot_product", "flash_attention"),
    "convolution": ("conv",),
    "norm": ("norm",),
    "products": ("mm", "matmul", "linear", "addmv", "einsum", "dot", "aten::mv"),
    "elementwise": (
        "add", "sub", "mul", "div", "exp", "pow", "rsqrt", "sqrt", "neg", "sigmoid", "silu", "gelu", "relu", "tanh",
        "softplus", "softmax", "log", "sum", "mean", "cumsum", "where", "clamp", "tril", "maximum", "minimum", "square",
    ),
}  # fmt: skip
"""Class -> parts of operators' names; the first class that fits."""


def class_of(name: str) -> str:
    """The class of an operator outside scans."""
    return next((kind for kind, words in WORDS.items() if any(word in name for word in words)), "other")


def operator_split(call: Callable[[], Any], *, warmup: bool = True) -> dict[str, float]:
    """Seconds of each class in one call, on the device that does the work.

    warmup: make one that is not counted before; without it, such a call was made already.
    """
    from torch.profiler import ProfilerActivity, profile

    if warmup:
        call()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with quiet(), profile(activities=activities) as profiler:
        call()
    found = dict.fromkeys(CLASSES, 0.0)
    for event in profiler.events():
        on_device = getattr(event, "self_device_time_total", 0.0)
        spent = on_device if torch.cuda.is_available() and on_device else event.self_cpu_time_total
        if torch.cuda.is_available() and not on_device:
            continue  # the processor's own time passes while the device works
        found["scan" if _in_scan(event) else class_of(event.name)] += spent / 1e6
    return found


def _in_scan(event: Any) -> bool:
    while event is not None:
        if event.name == SCAN:
            return True
        event = event.cpu_parent
    return False
