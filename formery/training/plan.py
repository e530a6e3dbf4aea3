"""How long training will take, measured before it begins."""

from __future__ import annotations

import copy
import time
from statistics import median
from typing import Any

import torch
from torch import nn

from ..tasks.task import Task
from .config import TrainConfig
from .run import Run


def seconds_per_step(model: nn.Module, data: Any, task: Task, config: TrainConfig, *, num: int = 5) -> float:
    """Median seconds of a training step of `config` here, over `num` steps of a copy; the model stays as it is."""
    twin = copy.deepcopy(model).train()
    run = Run(twin, data, task, config, {}, None)
    run.prepare(None, "")
    device = next(twin.parameters()).device
    taken: list[float] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for step in range(num + 1):
            start = time.perf_counter()
            inputs, targets = task.train_batch(data, step, config.batch_size)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                run.train_step((inputs.to(device), targets.to(device)), _backward)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - start)
    return median(taken[1:])  # the first step sets up


def _backward(loss: torch.Tensor) -> None:
    loss.backward()
