"""Which kinds of operators a forward's time goes to, by torch's profiler: self times, so that nothing counts twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
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


def operator_split(call: Callable[[], Any], *, warmup: bool = True, repeats: int = 1) -> dict[str, float]:
    """Seconds of each class in one call, on the device that does its work: each class's median over `repeats` calls.

    That is an accelerator where the call ran kernels on one (the processor's own time passes beside theirs), and the
    processor otherwise, whatever else the machine has.

    warmup: make one that is not counted before; without it, such a call was made already.
    """
    if warmup:
        call()
    splits = [_profiled(call) for _ in range(repeats)]
    return {kind: median(split[kind] for split in splits) for kind in CLASSES}


def _profiled(call: Callable[[], Any]) -> dict[str, float]:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with quiet(), profile(activities=activities) as profiler:
        call()
    # A kernel stands there twice: alone, and with the operator that launched it, whose class is known.
    events = [event for event in profiler.events() if event.device_type.name == "CPU"]
    spent = [event.self_device_time_total for event in events]
    if not any(spent):
        spent = [event.self_cpu_time_total for event in events]
    found = dict.fromkeys(CLASSES, 0.0)
    for event, microseconds in zip(events, spent, strict=True):
        found["scan" if _in_scan(event) else class_of(event.name)] += microseconds / 1e6
    return found


def shares(split: Mapping[str, float]) -> dict[str, float]:
    """What of all seconds belongs to each class; 0 for all of them where there are none."""
    total = sum(split.values())
    return {kind: spent / total if total else 0.0 for kind, spent in split.items()}


def _in_scan(event: Any) -> bool:
    while event is not None:
        if event.name == SCAN:
            return True
        event = event.cpu_parent
    return False
