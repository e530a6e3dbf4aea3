"""`train`: from a model, data and a task to the model with its best weights."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from ..data import open_data
from ..errors import BadData, BadSpec, Unwritable
from ..model import Model
from ..runtime.given import open_for
from ..spec import Spec
from ..tasks import task_of
from ..tasks.task import Task
from . import arithmetic, checkpoint, journal, started
from .checkpoint import Checkpoint
from .config import TrainConfig
from .journal import Entry
from .processes import is_first, taken
from .progress import Progress, Reporter, reporter
from .run import Diverged, Run
from .teacher import open_teacher

__all__ = ["Diverged", "Progress", "TrainResult", "train"]

OnProgress = Callable[[Progress], bool | None]


@dataclass(frozen=True)
class TrainResult:
    """What came of a training."""

    status: str
    """"finished", "early stop", "time limit", "stopped" (on_progress said so) or "paused" (`until` was reached)."""
    steps: int
    """Steps done, those before a resumption included."""
    best_step: int
    """After which step the model was best; 0 where it was not judged yet."""
    score: float
    """The best score on the validation part, higher is better; minus infinity where there is none yet."""
    metrics: dict[str, float | int]
    """All metrics of that judgement."""
    metric: str
    """The metric that the score stands for."""
    curve: list[Entry]
    """step, loss, rate, score, metrics, seconds of each judgement."""
    seconds: float
    """Time of training and judging, that before a resumption included."""
    folder: Path | None
    config: TrainConfig

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        found = {name: value for name, value in asdict(self).items() if name not in ("config", "folder")}
        folder = None if self.folder is None else str(self.folder)
        score = self.score if self.best_step or self.metrics else None
        return found | {"score": score, "folder": folder, "config": self.config.plain()}


def train(
    model: nn.Module,
    data: Any,
    task: Task | Spec | None = None,
    config: TrainConfig | Mapping[str, Any] | None = None,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    devices: str | int = "auto",
    workers: int = 0,
    time_limit: float | None = None,
    until: int | None = None,
    on_progress: OnProgress | None = None,
    quiet: bool = False,
    told: Mapping[str, Any] | None = None,
    **options: Any,
) -> TrainResult:
    """Train `model` in place; afterwards it holds the weights of the best judgement and is in eval mode.

    data: open data, or what `formery.data.open_data` opens: a name or a path (with the seed of the training, as the
    model sees such data).
    task: an object, name or spec, the data's own unless given; config and `options`: what `TrainConfig` takes (`steps`
    is needed). folder: where curve (`journal.jsonl`) and checkpoints go; without one nothing is written. resume: go on
    from the folder's newest whole checkpoint, or start where there is none: the result is that of an unbroken training,
    bit for bit on one machine's CPU. devices: "auto" (one, the best), "cpu", "cuda", "mps", or how many. workers:
    processes that prepare batches. time_limit: seconds of this call after which it stops, judged and resumable. until:
    pause after this step (a race goes on with those that are worth it); a paused model keeps its last weights.
    on_progress: told of every judgement; False stops. told: plain data about its start, kept in the folder for whoever
    resumes it.

    Ctrl-C and SIGTERM end the step, write a checkpoint and then stop the program as usual. BadSpec for options that do
    not fit, and models that do not fit the data or have nothing to train; Unwritable for a folder that holds another
    training, or where another process is at work; BadFile for damaged checkpoints, Diverged where the loss is no
    number.
    """
    settled = TrainConfig.of(config, **options)
    _check_trainable(model)
    data = _opened(model, data, settled.seed)
    task = task_of(data.task if task is None else task)
    task.check(data)
    if until is not None and not 0 < until <= settled.steps:
        raise BadSpec(f"until lies in 1..{settled.steps} (steps), got {until}")
    if time_limit is not None and not time_limit > 0:
        raise BadSpec(f"time_limit is a number of seconds above 0, got {time_limit}")
    place = None if folder is None else Path(folder)
    teacher = None if settled.distill is None else open_teacher(settled.distill, data, task)
    identity = identity_of(model, data, task, settled) | ({} if teacher is None else {"teacher": teacher.digest})
    run = Run(model, data, task, settled, identity, place, teacher)
    if resume and place is None:
        raise BadSpec("resume=True needs the folder of the training that is to go on")
    first = is_first(devices)
    teller = reporter(settled.steps, task.metric, quiet or not first)
    device = next(model.parameters()).device
    job = _Job(run, teller, time_limit, until, on_progress)
    with taken(place) if place is not None and first else nullcontext():
        resumed, source = _resumed(run, resume, teller)
        if resumed is None and place is not None and told is not None and first:
            started.note(place, told, settled.steps)
        with _random_state(devices), _arithmetic(resumed):
            task.check_model(model, data)
            try:
                teller.start(0 if resumed is None else resumed.state["step"])
                job.go(resumed, source, devices, workers)
            finally:
                teller.stop()
                model.to(device)
        if job.status != "paused":
            run.put_best()
    model.eval()
    best = run.best or {"step": 0, "score": float("-inf"), "metrics": {}}
    return TrainResult(
        status=job.status,
        steps=run.step,
        best_step=best["step"],
        score=best["score"],
        metrics=best["metrics"],
        metric=task.metric,
        curve=run.curve,
        seconds=run.seconds,
        folder=place,
        config=settled,
    )


def _check_trainable(model: nn.Module) -> None:
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        what = f"all {len(parameters)} tensors of parameters are frozen" if parameters else "there are no parameters"
        raise BadSpec(f"the model has nothing to train: {what}; set requires_grad of those that are to be trained")
    if small := next((p.dtype for p in parameters if p.is_floating_point() and p.dtype.itemsize < 4), None):
        raise BadSpec(
            f"the model's weights are {small}, too coarse to be trained; call model.float(), and give "
            "precision='bf16' for products in bfloat16"
        )


def _opened(model: nn.Module, data: Any, seed: int) -> Any:
    """The data, opened as the model sees such where they are only named."""
    if isinstance(data, str | Path):
        return open_for(model, data, seed=seed) if isinstance(model, Model) else open_data(data, seed=seed)
    if not hasattr(data, "digest"):
        raise BadData(f"{type(data).__name__} is no open data; give what formery.data.open_data returns, or a path")
    return data


def identity_of(model: nn.Module, data: Any, task: Task, config: TrainConfig) -> dict[str, Any]:
    """What a resumed training must agree with."""
    resolved = getattr(model, "resolved", None)
    structure = (
        [resolved, getattr(model, "plans", None)]
        if resolved
        else sorted((n, list(p.shape)) for n, p in model.named_parameters())
    )
    text = json.dumps(structure, sort_keys=True, default=str)
    return {
        "config": config.plain(),
        "task": task.describe(),
        "data": {"digest": data.digest, "seed": data.seed},
        "augmentation": None if (found := getattr(data, "augmentation", None)) is None else found.describe(),
        "model": hashlib.sha256(text.encode()).hexdigest(),
    }


def _resumed(run: Run, resume: bool, teller: Reporter) -> tuple[Checkpoint | None, str]:
    """The checkpoint to go on from, with the journal cut to it; Unwritable where another training would be lost."""
    if run.folder is None:
        return None, ""
    if not resume:
        if checkpoint.found(run.folder):
            raise Unwritable(
                f"{run.folder} holds a training; go on with resume (resume=True), or choose another folder"
            )
        journal.cut(run.folder, -1)
        return None, ""
    resumed, faults = checkpoint.newest(run.folder)
    for fault in faults:
        teller.say(f"{fault}; going on from the one before")
    if resumed is None:
        teller.say(f"there is no training to go on with in {run.folder}; starting at the first step")
        journal.cut(run.folder, -1)
        return None, ""
    _check_identity(resumed.state["identity"], run.identity, run.folder)
    run.curve = journal.cut(run.folder, resumed.state["step"])
    return resumed, str(run.folder)


def _check_identity(theirs: dict[str, Any], ours: dict[str, Any], folder: Path) -> None:
    for name, value in ours["config"].items():
        if theirs["config"].get(name) != value:
            raise BadSpec(
                f"{name} is {value!r}, the training in {folder} was started with {theirs['config'].get(name)!r}; "
                "resume with the same options, or choose another folder"
            )
    for name, what in (("task", "another task"), ("data", "other data or another seed"), *OTHERS):
        if theirs.get(name) != ours.get(name):
            raise BadSpec(f"the training in {folder} was started with {what}; give the same, or choose another folder")


def _random_state(devices: str | int) -> AbstractContextManager[None]:
    """The caller's random state, put back afterwards."""
    cuda = torch.cuda.is_available() and devices not in ("cpu", "mps")
    return torch.random.fork_rng([torch.cuda.current_device()] if cuda else [])


def _arithmetic(resumed: Checkpoint | None) -> AbstractContextManager[None]:
    """Threads and products as the checkpoint notes them."""
    state = {"threads": None, "arithmetic": None} if resumed is None else resumed.state
    return arithmetic.repeated(state["threads"], state["arithmetic"])


OTHERS = (
    ("augmentation", "another augmentation, or another library computed it"),
    ("model", "another model"),
    ("teacher", "another teacher"),
)


class _Job:
    """One call of `train`: decides after each step what is due, and whether to go on."""

    def __init__(
        self, run: Run, teller: Reporter, time_limit: float | None, until: int | None, on_progress: OnProgress | None
    ) -> None:
        self.run, self.teller, self.on_progress = run, teller, on_progress
        self.until = until or run.config.steps
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.interrupted: int | None = None
        self.status = "finished"

    def go(self, resumed: Checkpoint | None, source: str, devices: str | int, workers: int) -> None:
        """Run what is left of the steps."""
        start = 0 if resumed is None else int(resumed.state["step"])
        ended = None if resumed is None else resumed.state["ended"]
        if ended or start >= self.until:
            self.run.prepare(resumed, source)
            self.status = ended or ("finished" if start >= self.run.config.steps else "paused")
            return
        from . import fitting

        self.fitting = fitting.Fitting(self.run, resumed, source, self.after_step)
        try:
            with self._signals():
                fitting.fit(self.fitting, start, self.until, devices=devices, workers=workers)
        except SystemExit:
            if self.interrupted is None:
                raise
        if self.interrupted == signal.SIGINT:
            raise KeyboardInterrupt
        if self.interrupted is not None:
            raise SystemExit(128 + self.interrupted)

    def after_step(self) -> bool:
        """Judge, keep and tell what is due after a step; whether to go on."""
        run, config = self.run, self.run.config
        self.teller.step(run.step)
        overdue = self.deadline is not None and time.monotonic() > self.deadline
        late, broken = self.fitting.agreed((overdue, self.interrupted is not None))
        last = run.step == config.steps
        due = run.step % (config.eval_every or 1) == 0 or last
        go_on = run.step < self.until and not late and not broken
        if due or (late and not broken):
            entry = run.judge()
            (wanted,) = self.fitting.agreed((self._tell(entry),))
            if config.patience is not None and run.stale >= config.patience and not last:
                run.ended = self.status = "early stop"
                go_on = False
            elif not wanted and not last:
                self.status, go_on = "stopped", False
            elif late and not last:
                self.status = "time limit"
        if run.step == self.until < config.steps and self.status == "finished":
            self.status = "paused"
        if due or not go_on:
            run.save()
        return go_on

    def _tell(self, entry: Entry) -> bool:
        assert self.run.best is not None
        progress = Progress(
            step=entry["step"],
            steps=self.run.config.steps,
            loss=entry["loss"],
            score=entry["score"],
            best=self.run.best["score"],
            metrics=entry["metrics"],
            seconds=entry["seconds"],
        )
        self.teller.judged(progress)
        if self.on_progress is None:
            return True
        try:
            return self.on_progress(progress) is not False
        except KeyboardInterrupt:
            self.interrupted = signal.SIGINT
            return True

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM are noted and obeyed when the step is done; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.interrupted is not None:
                raise SystemExit(128 + number)
            self.interrupted = number

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
