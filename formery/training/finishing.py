"""The end of a run: what came of it, told in `result.json` and saved beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_json
from . import facts
from . import pictures as draw
from .processes import is_first
from .started import TRAINING as TRAINING

if TYPE_CHECKING:
    from ..model import Model
    from ..tasks.task import Task
    from .loop import TrainResult

RESULT, MODEL = "result.json", "model"
"""What a run writes into its folder."""


def finished(
    model: Model,
    data: Any,
    task: Task,
    training: TrainResult,
    out: Path,
    *,
    told: Mapping[str, Any] | None = None,
    test: bool = False,
    devices: str | int = "auto",
    pictures: bool = False,
) -> dict[str, Any]:
    """Note in the model what it has learned from, save it to `out`/model and what is known of the run to `out`.

    told: what else `result.json` says, before the rest. test: whether the model is judged, once, on the test part as
    well. Returns the content of `result.json`. Of several processes the first writes.
    """
    model.extra = task.extra(data)
    found: dict[str, Any] = {
        **(told or {}),
        "status": training.status,
        "metrics": {"validation": training.metrics},
        "best_step": training.best_step,
        "steps": training.steps,
        "seconds": round(training.seconds, 3),
        "task": task.describe(),
        "config": training.config.plain(),
        "data": data.describe(),
        "spec": model.spec,
        "resolved": model.resolved,
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": facts.versions(),
        "machine": facts.machine(),
    }
    if test:
        found["metrics"]["test"] = task.evaluate(model, data, "test")
    if is_first(devices):
        model.save_pretrained(out / MODEL)
        write_json(out / RESULT, found)
        if pictures:
            draw.after(model, data, task, training, out)
    return found
