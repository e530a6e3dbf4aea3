"""What is said while training: a bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Progress:
    """Where a training stands after a judgement."""

    step: int
    steps: int
    loss: float
    """Mean over the training steps since the last judgement."""
    score: float
    """Higher is better."""
    best: float
    metrics: dict[str, float | int]
    seconds: float


class Reporter(Protocol):
    """Told of every step and every judgement."""

    def start(self, step: int) -> None: ...

    def step(self, step: int) -> None: ...

    def judged(self, progress: Progress) -> None: ...

    def say(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Says nothing."""

    def start(self, step: int) -> None:
        return

    def step(self, step: int) -> None:
        return

    def judged(self, progress: Progress) -> None:
        return

    def say(self, text: str) -> None:
        return

    def stop(self) -> None:
        return


class Lines(Silent):
    """A line for each judgement, at most one in `apart` seconds beside the first and the last."""

    def __init__(self, console: Any, metric: str, apart: float = 2.0) -> None:
        self.console, self.metric, self.apart, self.last = console, metric, apart, float("-inf")

    def judged(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= self.apart or progress.step == progress.steps:
            self.last = now
            self.say(
                f"step {progress.step}/{progress.steps}  {summary(progress, self.metric)}  {progress.seconds:.0f} s"
            )

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


class Bar(Silent):
    """A bar with the last judgement beside it."""

    def __init__(self, console: Any, metric: str, steps: int) -> None:
        from rich import progress

        self.metric, self.now = metric, 0
        columns = [
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[text]}"),
            progress.TimeRemainingColumn(),
        ]
        self.bar = progress.Progress(*columns, console=console, transient=False)
        self.task = self.bar.add_task("training", total=steps, text="")

    def start(self, step: int) -> None:
        self.bar.start()
        self.step(step)

    def step(self, step: int) -> None:
        self.bar.update(self.task, completed=step)

    def judged(self, progress: Progress) -> None:
        self.bar.update(self.task, text=summary(progress, self.metric))

    def say(self, text: str) -> None:
        self.bar.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def stop(self) -> None:
        self.bar.stop()


def summary(progress: Progress, metric: str) -> str:
    """Loss and score in a few words."""
    return f"loss {progress.loss:.4f}  {metric.replace('_', ' ')} {progress.metrics[metric]:.4f}"


def reporter(steps: int, metric: str, quiet: bool) -> Reporter:
    """The one that suits standard error; the silent one where `quiet` asks for it."""
    if quiet:
        return Silent()
    from rich.console import Console

    console = Console(stderr=True)
    return Bar(console, metric, steps) if console.is_terminal else Lines(console, metric)
