"""The conditions of a measurement: threads, evaluation mode, devices that work on their own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadSpec


@contextmanager
def using_threads(threads: int | None) -> Iterator[int]:
    """`threads` for torch's operations inside the block (None: as many as now); yields their number."""
    if threads is not None and threads < 1:
        raise BadSpec(f"threads is at least 1, got {threads}")
    before = torch.get_num_threads()
    try:
        if threads is not None and threads != before:
            torch.set_num_threads(threads)
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """Every module among `models` in evaluation mode inside the block, and as it was after it."""
    changed = [m for m in models if isinstance(m, nn.Module) and any(module.training for module in m.modules())]
    resting = [module for model in changed for module in model.modules() if not module.training]
    try:
        for model in changed:
            model.eval()
        yield
    finally:
        for model in changed:
            model.train()
        for module in resting:
            module.training = False


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection inside the block: it would fall into somebody's time."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def synchronize(values: Any) -> None:
    """Wait for the device that the tensors among `values` stand on, where it works on its own."""
    device = next((value.device.type for value in values if isinstance(value, Tensor)), "cpu")
    if device not in ("cpu", "meta"):
        torch.accelerator.synchronize()
