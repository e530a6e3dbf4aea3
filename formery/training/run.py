"""One training: a model, its optimizer and its counts, moved on step by step. It knows nothing of Lightning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import BadFile, FormeryError
from ..saving import tensors_of
from ..tasks.task import Batch, Task
from . import arithmetic, checkpoint, journal, optimizer, schedule
from .batches import pieces, seed_step
from .checkpoint import Checkpoint
from .config import TrainConfig
from .journal import Entry
from .layers import head_of
from .teacher import Teacher


class Diverged(FormeryError):
    """A training whose loss is no longer a number."""


class Run:
    """What a training carries from step to step, and how it moves on.

    `identity` is plain data that a resumed training must agree with. With a `folder` on `writes` (one process of
    several) curve, checkpoints and best weights are kept there; without one the best weights are kept in memory.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        task: Task,
        config: TrainConfig,
        identity: dict[str, Any],
        folder: Path | None,
        teacher: Teacher | None = None,
    ) -> None:
        self.teacher = teacher
        self.model, self.data, self.task, self.config, self.identity, self.folder = (
            model,
            data,
            task,
            config,
            identity,
            folder,
        )
        self.writes, self.rank, self.alone = True, 0, True
        self.mean: Callable[[Tensor], Tensor] = lambda value: value
        """Over the processes, where there are several."""
        self.step = 0
        self.best: dict[str, Any] | None = None
        """{"step", "score", "metrics"} of the best judgement."""
        self.stale = 0
        """Judgements since then."""
        self.ended: str | None = None
        self.seconds = 0.0
        self.curve: list[Entry] = []
        self.kept: dict[str, Tensor] = {}
        """The best weights, where there is no folder."""
        self.optimizer: torch.optim.AdamW | None = None
        self.averaged: AveragedModel | None = None
        self.total: Tensor | None = None
        """Sum of the losses since the last judgement, float64."""
        self.num_summed = 0
        self._clock: float | None = None

    # -------------------------------------------------------------------------------------------- stepping

    def prepare(self, resumed: Checkpoint | None, source: str) -> None:
        """Make optimizer and averages for the model where it now stands; take over a checkpoint."""
        self.optimizer = optimizer.adamw(self.model, self.config)
        if self.config.ema is not None:
            average = get_ema_multi_avg_fn(self.config.ema)
            self.averaged = AveragedModel(self.model, multi_avg_fn=average)
        device = next(self.model.parameters()).device
        if self.teacher is not None:
            self.teacher.to(device)
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        if resumed is not None:
            self._take(resumed, source)
        self._clock = time.perf_counter() - self.seconds
        if resumed is None:
            self.save()  # a kill before the first judgement goes back to the same first weights

    def train_step(self, batch: Batch, backward: Callable[[Tensor], None]) -> None:
        """One step of the optimizer; Diverged where the loss is no number."""
        assert self.optimizer is not None
        assert self.total is not None
        seed_step(self.config.seed, self.step, self.total.device, self.rank)
        self.optimizer.zero_grad()
        total: Tensor | None = None
        with self._resting():
            for inputs, targets, share in pieces(batch, self.config.accumulate):
                loss = self._loss((inputs, targets))
                if share != 1.0:
                    loss = loss * share
                backward(loss)
                total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        if total.device.type == "cpu" and not math.isfinite(total.item()):
            raise self._diverged(f"the loss of step {self.step + 1}", total.item())
        if self.config.grad_clip is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.config.grad_clip, foreach=True)
        rate = schedule.rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self.total += total.double()
        self.num_summed += 1
        self.step += 1

    def _loss(self, batch: Batch) -> Tensor:
        return self.task.loss(self.model, batch) if self.teacher is None else self.teacher.loss(self.model, batch)

    @contextmanager
    def _resting(self) -> Iterator[None]:
        """In the first steps, where the config says so, what lies below the head gets no gradients."""
        if self.step >= self.config.head_only:
            yield
            return
        head = head_of(self.model)
        body = [p for p in self.model.parameters() if p.requires_grad and p not in head]
        if self.alone:
            for parameter in body:
                parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in body:
                parameter.requires_grad_(True)
                parameter.grad = None

    def _diverged(self, what: str, value: float) -> Diverged:
        clip = self.config.grad_clip
        remedy = "set grad_clip to 1" if clip is None else f"a smaller grad_clip (it is {clip:g})"
        return Diverged(
            f"training diverged: {what} is {value}; lower the learning_rate (it is {self.config.learning_rate:g}), "
            f"lengthen the warmup (it is {self.config.warmup}), or {remedy}"
        )

    # -------------------------------------------------------------------------------------------- judging

    @property
    def judged_model(self) -> nn.Module:
        """The model that is judged and kept: the average of the weights where there is one."""
        if self.averaged is None:
            return self.model
        inner: nn.Module = self.averaged.module
        return inner

    def judge(self) -> Entry:
        """Judge on the validation part, note the entry, and keep the weights if they are the best so far.

        Diverged where the loss or any of the metrics is no number.
        """
        assert self.total is not None
        loss = self.mean(self.total).item() / max(1, self.num_summed)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss of step {self.step}", loss)
        metrics = self.task.evaluate(self.judged_model, self.data, "validation")
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} on the validation part after step {self.step}", value)
        score = self.task.score(metrics)
        self.total.zero_()
        self.num_summed = 0
        self.seconds = time.perf_counter() - (self._clock or 0.0)
        entry: Entry = {
            "step": self.step,
            "loss": loss,
            "rate": schedule.rate(self.config, max(0, self.step - 1)),
            "score": score,
            "metrics": metrics,
            "seconds": round(self.seconds, 3),
        }
        self.curve.append(entry)
        if self.best is None or score > self.best["score"]:
            self.best, self.stale = {"step": self.step, "score": score, "metrics": metrics}, 0
            self._keep_best()
        else:
            self.stale += 1
        if self.folder is not None and self.writes:
            journal.append(self.folder, entry)
        return entry

    def _keep_best(self) -> None:
        tensors = tensors_of(self.judged_model)
        if self.folder is None:
            self.kept = {name: t.clone() for name, t in tensors.items()}
        elif self.writes:
            checkpoint.save_best(self.folder, self.step, tensors)

    def put_best(self) -> None:
        """Give the model the best weights."""
        if self.best is None:
            return
        if self.folder is None:
            checkpoint.put(self.model, self.kept, "the best weights")
        else:
            path = checkpoint.best_path(self.folder, self.best["step"])
            checkpoint.put(self.model, checkpoint.read(path).tensors, str(path))

    # -------------------------------------------------------------------------------------------- saving

    def save(self) -> None:
        """Write a checkpoint, where there is a folder."""
        if self.folder is None:
            return
        assert self.optimizer is not None
        assert self.total is not None
        loss_sum = self.mean(self.total).item()
        if not self.writes:
            return
        self.seconds = time.perf_counter() - (self._clock or 0.0)
        tensors = {f"model:{name}": t for name, t in tensors_of(self.model).items()}
        tensors |= {f"optimizer:{name}": t for name, t in optimizer.averages(self.optimizer).items()}
        if self.averaged is not None:
            tensors |= {f"average:{name}": t for name, t in tensors_of(self.averaged.module).items()}
        state = {
            "step": self.step,
            "best": self.best,
            "stale": self.stale,
            "ended": self.ended,
            "seconds": self.seconds,
            "loss_sum": loss_sum,
            "num_summed": self.num_summed,
            "updates": optimizer.update_counts(self.optimizer),
            "num_averaged": 0 if self.averaged is None else int(self.averaged.n_averaged),
            "threads": torch.get_num_threads(),
            "arithmetic": arithmetic.chosen(),
            "identity": self.identity,
        }
        checkpoint.save(self.folder, Checkpoint(tensors, state))
        spoken_of = {c["step"] for c in (self.best, self._best_before) if c is not None}
        checkpoint.drop_bests(self.folder, spoken_of)
        self._best_before = self.best

    _best_before: dict[str, Any] | None = None
    """The best of the checkpoint before the last, which is still there to go back to."""

    def _take(self, resumed: Checkpoint, source: str) -> None:
        assert self.optimizer is not None
        assert self.total is not None
        state = resumed.state
        checkpoint.put(self.model, resumed.under("model:"), source)
        if self.averaged is not None:
            checkpoint.put(self.averaged.module, resumed.under("average:"), source)
            self.averaged.n_averaged.fill_(state["num_averaged"])
        try:
            optimizer.put_averages(self.optimizer, resumed.under("optimizer:"), state["updates"])
        except (KeyError, RuntimeError):
            raise BadFile(f"{source} is of another model; start again in another folder") from None
        self.step, self.best, self.stale, self.ended = state["step"], state["best"], state["stale"], state["ended"]
        self.seconds, self.num_summed = state["seconds"], state["num_summed"]
        self._best_before = self.best
        self.total.fill_(state["loss_sum"])
