"""Rewrites in their order on one model, with what each changed and what all of them cost."""

from __future__ import annotations

from typing import Any

from .. import rewrites
from ..data import open_data
from ..model import Model
from ..tasks import task_of
from .ship import calibration, points_lost


def shrink(
    model: Model, *, source: Any = None, drop: int = 0, unit: str = "joint", fold: bool = True
) -> dict[str, Any]:
    """Rewrite `model` in place: drop `drop` units by calibration on the training part of `source`, then fold.

    Returns the rewrites' reports and, with data, the validation score before and after.
    """
    result: dict[str, Any] = {"rewrites": []}
    data: Any = None
    batches, task = None, None
    if source is not None:
        data = open_data(source) if isinstance(source, str) else source
        task = task_of(model.extra.get("task", data.task))
        task.check(data)
        batches = list(calibration(data, task))
        before = task.evaluate(model, data, "validation")[task.metric]
    if drop:
        result["rewrites"].append(rewrites.apply(model, "drop", batches, unit=unit, count=drop)[2])
    if fold:
        result["rewrites"].append(rewrites.apply(model, "fold", batches)[2])
    if task is not None:
        after = task.evaluate(model, data, "validation")[task.metric]
        lost = points_lost(task, float(before), float(after))
        result |= {"metric": task.metric, "before": before, "after": after, "points_lost": lost}
    return result
