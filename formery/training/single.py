"""One model on one data set: from a spec or a saved model to a saved model and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..create import create_model
from ..data import open_data
from ..errors import BadSpec, Unwritable
from ..files import write_json
from ..spec import Spec, override
from ..tasks import task_of
from . import facts
from .loop import train
from .recipes import MODEL, RESULT, TRAINING


def train_one(
    model: str | Path | Mapping[str, Any],
    source: Any,
    out: str | Path,
    config: Mapping[str, Any],
    *,
    task: Spec | None = None,
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    devices: str | int = "auto",
    time_limit: float | None = None,
) -> dict[str, Any]:
    """Train a spec from scratch, or the saved model in a folder further, and save it to `out`/model.

    config: what `TrainConfig` takes (`steps` is needed). Returns the content of `out`/result.json. A saved classifier
    gets a fresh last layer where the data's classes are others; Unwritable where `out` holds another run.
    """
    from ..model import Model

    out = Path(out)
    if not resume and (out / RESULT).exists():
        raise Unwritable(f"{out} holds a run already; choose another place, or go on with resume")
    seed = int(config.get("seed", 0))
    data: Any = open_data(source, seed=seed) if isinstance(source, str | Path) else source
    chosen = task_of(data.task if task is None else task)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(model, Mapping):
            net = create_model(_fitted(chosen, model, data, changes))
        else:
            net = Model.from_pretrained(model)
            if chosen.kind == "classify" and net.extra.get("classes") != list(data.classes):
                net.reset_classifier(data.num_classes)
    result = train(
        net, data, chosen, config, folder=out / TRAINING, resume=resume, devices=devices, time_limit=time_limit
    )
    net.extra = chosen.extra(data)
    net.save_pretrained(out / MODEL)
    found = {
        "status": result.status, "steps": result.steps, "best_step": result.best_step, "seconds": round(result.seconds, 3),
        "metrics": {"validation": result.metrics}, "resolved": net.resolved, "config": result.config.plain(),
        "data": data.describe(), "task": chosen.describe(), "versions": facts.versions(), "machine": facts.machine(),
    }  # fmt: skip
    write_json(out / RESULT, found)
    return found


def _fitted(task: Any, spec: Mapping[str, Any], data: Any, changes: Mapping[str, Any] | None) -> dict[str, Any]:
    if not changes:
        return task.fit_spec(spec, data)
    if "stem" not in spec:
        raise BadSpec("a model's spec has stem, body and head")
    from ..spec import resolve

    return task.fit_spec(override(resolve(spec), changes), data)
