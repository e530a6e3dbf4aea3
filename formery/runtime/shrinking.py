"""Rewrites in their order on one model, with what each changed and what all of them cost."""

from __future__ import annotations

from typing import Any

from .. import rewrites
from ..errors import BadSpec
from ..model import Model
from .given import open_for, task_for
from .ship import calibration


def shrink(
    model: Model, *, source: Any = None, drop: int = 0, unit: str = "joint", fold: bool = True
) -> dict[str, Any]:
    """Rewrite `model` in place: drop `drop` units by calibration on the training part of `source`, then fold.

    Returns the rewrites' reports and, with data, the validation score before and after and the points between them.
    """
    if drop and source is None:
        raise BadSpec("drop looks at data; give a source")
    if source is None:
        return {"rewrites": [_fold(model, None)] if fold else []}
    data = open_for(model, source)
    task = task_for(model, data)
    batches = list(calibration(data, task))
    before = float(task.evaluate(model, data, "validation")[task.metric])
    reports = [rewrites.apply(model, "drop", batches, unit=unit, count=drop)[2]] if drop else []
    reports += [_fold(model, batches)] if fold else []
    after = float(task.evaluate(model, data, "validation")[task.metric])
    return {
        "rewrites": reports, "metric": task.metric, "before": before, "after": after,
        "points_lost": task.points_lost(before, after),
    }  # fmt: skip


def _fold(model: Model, batches: Any) -> dict[str, Any]:
    return rewrites.apply(model, "fold", batches)[2]
