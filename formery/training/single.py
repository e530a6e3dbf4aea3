"""One model on one data set: from a spec or a saved model to a saved model and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..create import create_model, model_spec
from ..data import open_data
from ..errors import BadSpec, Unwritable
from ..files import write_json
from ..model import Model
from ..runtime.given import open_for
from ..tasks import task_of
from ..tasks.task import Task
from . import facts
from .config import TrainConfig
from .loop import train
from .processes import is_first
from .recipes import MODEL, RESULT, TRAINING
from .start import check_overruled, sized_by


def train_one(
    model: str | Path | Mapping[str, Any],
    source: Any,
    out: str | Path,
    config: TrainConfig | Mapping[str, Any],
    *,
    task: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    resume: bool = False,
    devices: str | int = "auto",
    time_limit: float | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a spec from its first weights, or the saved model in a folder further, and save it to `out`/model.

    config: what `TrainConfig` takes (`steps` is needed); its seed is that of weights, data and order. task, options:
    options of the data's task and of their opener. changes: overrides of the spec. Returns the content of
    `out`/result.json. A saved model sees the data at its own size, normalised as those of its first training; a saved
    classifier gets a fresh last layer where the classes are others. Unwritable where `out` holds another run.
    """
    out = Path(out)
    if not resume and (out / RESULT).exists():
        raise Unwritable(f"{out} holds a run already; choose another place, or go on with resume")
    settled = TrainConfig.of(config)
    with torch.random.fork_rng():
        torch.manual_seed(settled.seed)
        if isinstance(model, Mapping):
            net, data, chosen = _fresh(model, source, settled.seed, task or {}, changes or {}, options or {})
        elif changes:
            raise BadSpec(f"{model} is built as it was saved; its spec cannot be changed")
        else:
            net, data, chosen = _further(model, source, settled.seed, task or {}, options or {})
    result = train(
        net, data, chosen, settled, folder=out / TRAINING, resume=resume, devices=devices, time_limit=time_limit,
        quiet=quiet,
    )  # fmt: skip
    net.extra = chosen.extra(data)
    found = {
        "status": result.status,
        "steps": result.steps,
        "best_step": result.best_step,
        "seconds": round(result.seconds, 3),
        "metrics": {"validation": result.metrics},
        "parameters": sum(p.numel() for p in net.parameters()),
        "resolved": net.resolved,
        "config": result.config.plain(),
        "data": data.describe(),
        "task": chosen.describe(),
        "versions": facts.versions(),
        "machine": facts.machine(),
    }
    if is_first(devices):
        net.save_pretrained(out / MODEL)
        write_json(out / RESULT, found)
    return found


def _fresh(
    spec: Mapping[str, Any], source: Any, seed: int, task: Mapping[str, Any], changes: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Model, Any, Task]:  # fmt: skip
    """A model with its first weights, fitted to the data."""
    resolved = model_spec(spec, override=changes or None)
    data = open_data(source, seed=seed, **options) if isinstance(source, str | Path) else source
    check_overruled(changes, data)
    chosen = task_of({"kind": data.task, **task})
    with sized_by(data):
        return create_model(chosen.fit_spec(resolved, data)), data, chosen


def _further(
    folder: str | Path, source: Any, seed: int, task: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Model, Any, Task]:
    """A saved model, and the data as it has learned to see such."""
    net = Model.from_pretrained(folder)
    data = open_for(net, source, seed=seed, options=options)
    learned = net.extra.get("task")
    before = learned if isinstance(learned, Mapping) and learned.get("kind") == data.task else {}
    chosen = task_of({"kind": data.task, **before, **task})
    chosen.check(data)
    if chosen.kind == "classify" and net.extra.get("classes") != list(data.classes):
        net.reset_classifier(data.num_classes)
    return net, data, chosen
