"""What every task is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..errors import BadData, BadSpec, CannotRun
from ..measure.running import evaluating

Batch = tuple[Tensor, Tensor]
Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")


SHARE = "share of items"
"""The unit of metrics that people read in percent."""

KEPT_NAN = float("nan")
"""torchmetrics' `nan_strategy` by which what is no number stays none; its own choice leaves it out, with a warning."""


def in_words(value: float, unit: str) -> str:
    """A metric of this unit as people read it."""
    return f"{100 * value:.2f} %" if unit == SHARE else f"{value:.4f}"


class Task:
    """Head, loss, metrics and data contract of one kind of problem; it holds options and no state.

    `metric` is the key of `evaluate`'s result that models are compared by; `unit` and `direction` ("higher" or "lower"
    is better) say how to read it; `score` turns it so that higher is better. `metrics` are all keys of that result.
    """

    kind: ClassVar[str]
    modality: ClassVar[str]
    metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    unit: ClassVar[str]
    direction: ClassVar[Literal["higher", "lower"]]

    def options(self) -> dict[str, Any]:
        """The options it was made with."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Its spec with every option, plain data: `task_of` gives the same task back."""
        return {"kind": self.kind, **self.options()}

    def check(self, data: Any) -> None:
        """BadData unless `data` can be used for this task."""
        if getattr(data, "task", None) != self.kind:
            name, found = getattr(data, "name", type(data).__name__), getattr(data, "task", "no task")
            raise BadData(f"{name} is data for {found}, not for {self.kind}; choose another task or other data")

    def check_model(self, model: nn.Module, data: Any) -> None:
        """BadSpec unless the model's scores are those of this task, looked at on one training item."""
        raise NotImplementedError

    def head_spec(self, data: Any) -> dict[str, Any]:
        """The spec of a head for these data."""
        raise NotImplementedError

    def fit_spec(self, spec: Any, data: Any) -> dict[str, Any]:
        """The resolved spec of a model (a name, a spec) with inputs and outputs as the data have them.

        BadSpec where its stem takes something else, or its head gives something else.
        """
        raise NotImplementedError

    def train_batch(self, data: Any, step: int, batch_size: int) -> Batch:
        """(inputs, targets) of a training step: a pure function of the data's seed and `step`."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss over a batch, a scalar with gradient."""
        raise NotImplementedError

    def evaluate(
        self,
        model: nn.Module,
        data: Any,
        split: Split = "validation",
        batch_size: int = 256,
        device: torch.device | str | None = None,
    ) -> dict[str, float | int]:
        """Metrics over every item of a part of the data, the last incomplete batch included.

        The model is judged in eval mode, on `device` (where it stands unless given), and left as it was found.
        """
        raise NotImplementedError

    def score(self, metrics: Mapping[str, float | int]) -> float:
        """`metric` of a result of `evaluate`, turned so that higher is better."""
        value = float(metrics[self.metric])
        return value if self.direction == "higher" else -value

    def points_lost(self, before: float, after: float) -> float:
        """How much worse the metric `after` is than `before`: percentage points of a share, hundredths of others."""
        return 100 * (before - after if self.direction == "higher" else after - before)

    def extra(self, data: Any) -> dict[str, Any]:
        """What a saved model of this task carries along: plain data for those who use it."""
        options = {"options": dict(found)} if (found := getattr(data, "options", None)) else {}
        return {"task": self.describe(), "data": {"name": data.name, "digest": data.digest, **options}}


def check_split(split: str) -> None:
    """BadSpec unless `split` names a part of the data."""
    if split not in SPLITS:
        raise BadSpec(f"split {split!r} is none of {', '.join(SPLITS)}")


@contextmanager
def judging(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The model in eval mode without gradients on `device`; modes and place are put back afterwards."""
    first = next(model.parameters(), None)
    if first is None:
        raise CannotRun("a model without parameters cannot be judged")
    found = first.device
    wanted = found if device is None else torch.device(device)
    try:
        if wanted != found:
            model.to(wanted)
        with evaluating(model), torch.no_grad():
            yield wanted
    finally:
        if wanted != found:
            model.to(found)
