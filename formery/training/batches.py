"""Batches and random numbers of a step, as pure functions of seeds and the step: what makes a training resumable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data import chance
from ..tasks.task import Batch, Task


class Steps(Dataset[Batch]):
    """Item i is this device's share of the batch of step `start + i`."""

    def __init__(
        self, task: Task, data: Any, batch_size: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.task, self.data, self.batch_size = task, data, batch_size
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        inputs, targets = self.task.train_batch(self.data, self.start + index, self.batch_size)
        return (
            (inputs, targets)
            if self.world == 1
            else (inputs[self.rank :: self.world], targets[self.rank :: self.world])
        )


def loader(steps: Steps, workers: int = 0) -> DataLoader[Batch]:
    """The steps in order, prepared by `workers` processes beside the training where there are any."""
    return DataLoader(steps, batch_size=None, shuffle=False, num_workers=workers, collate_fn=as_it_is)


def as_it_is(batch: Any) -> Any:
    """Batches come whole."""
    return batch


def pieces(batch: Batch, num: int) -> Iterator[tuple[Tensor, Tensor, float]]:
    """(inputs, targets, share of the batch) of `num` pieces as equal as they can be."""
    inputs, targets = batch
    if num == 1:
        yield inputs, targets, 1.0
        return
    for part, wanted in zip(inputs.tensor_split(num), targets.tensor_split(num), strict=True):
        if len(part):
            yield part, wanted, len(part) / len(inputs)


def seed_step(seed: int, step: int, device: torch.device, rank: int = 0) -> None:
    """Seed torch's generators, the CPU's and that of `device`, for one step, so that dropout draws the same.

    Not by `torch.manual_seed`: without CUDA it notes a stack trace with every call, for good.
    """
    number = int(chance.words(seed, f"training {rank}", step, 1)[0])
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
