"""A run on Lightning's Trainer: devices, precision and processes are Lightning's, the steps are the run's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..interop.torchvision import declare_missing_operators

declare_missing_operators()

from lightning.fabric.plugins.environments.lightning import LightningEnvironment  # noqa: E402
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from ..tasks.task import Batch  # noqa: E402
from .batches import Steps, loader  # noqa: E402
from .checkpoint import Checkpoint  # noqa: E402
from .run import Run  # noqa: E402

PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed"}


class Fitting(LightningModule):
    """Hands each batch to the run, and calls `after` when a step is done; `after` says whether to go on."""

    def __init__(self, run: Run, resumed: Checkpoint | None, source: str, after: Callable[[], bool]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model: nn.Module = run.model
        self.run, self.resumed, self.source, self.after = run, resumed, source, after

    def configure_optimizers(self) -> None:
        """None: the run makes its optimizer when the model stands on its device."""

    def on_fit_start(self) -> None:
        self.run.rank, self.run.writes, self.run.mean = self.global_rank, self.trainer.is_global_zero, self.mean
        self.run.alone = self.trainer.world_size == 1
        self.run.prepare(self.resumed, self.source)
        self.resumed = None
        self.model.train()

    def training_step(self, batch: Batch, index: int) -> None:
        self.run.train_step(batch, self.manual_backward)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.after():
            self.trainer.should_stop = True

    def agreed(self, said: tuple[bool, ...]) -> tuple[bool, ...]:
        """What the first process says, in every process: all stop after the same step."""
        return said if self.trainer.world_size == 1 else tuple(self.trainer.strategy.broadcast(said))

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over the processes."""
        if self.trainer.world_size == 1:
            return value
        reduced = self.trainer.strategy.reduce(value.clone(), reduce_op="mean")
        assert isinstance(reduced, torch.Tensor)
        return reduced


def fit(fitting: Fitting, start: int, stop: int, *, devices: Any, workers: int) -> None:
    """Run the steps `start` to `stop`."""
    run = fitting.run
    config = run.config
    accelerator, number = placed(devices)
    with silence():
        trainer = Trainer(
            accelerator=accelerator,
            devices=number,
            precision=PRECISIONS[config.precision],
            max_epochs=1,
            barebones=True,
            plugins=[LightningEnvironment()],
            use_distributed_sampler=False,
        )
        world = trainer.world_size
        if config.batch_size % world:
            from ..errors import BadSpec

            raise BadSpec(
                f"batch_size {config.batch_size} is not a multiple of the {world} devices; choose one that is"
            )
        steps = Steps(run.task, run.data, config.batch_size, start, stop, trainer.global_rank, world)
        batches: DataLoader[Batch] = loader(steps, workers)
        trainer.fit(fitting, batches)


def placed(devices: str | int) -> tuple[str, int]:
    """(accelerator, number of devices): "auto" is one device, the best there is; "cpu" and "cuda" name it."""
    from ..errors import BadSpec

    if devices == "auto":
        return "auto", 1
    if devices in ("cpu", "cuda", "mps"):
        if devices == "cuda" and not torch.cuda.is_available():
            raise BadSpec("devices='cuda', but torch sees no CUDA device here; use 'auto' or 'cpu'")
        return ("gpu" if devices == "cuda" else devices), 1
    if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0:
        return "auto", devices
    raise BadSpec(f"devices is 'auto', 'cpu', 'cuda', 'mps' or how many, got {devices!r}")


@contextmanager
def silence() -> Iterator[None]:
    """Lightning's log lines and warnings are not for our users; their levels are put back."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
