"""Fine-tuning: a trained model made ready for other images, another size and other classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..create import create_model
from ..errors import BadFile
from ..files import CONFIG, read_json
from ..model import Model
from ..runtime.given import open_for
from ..tasks import task_of
from ..tasks.task import Task


def loaded(
    model: str | Path | Mapping[str, Any],
    *,
    weights: str | None = None,
    img_size: int | None = None,
    drop_path: float | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Model:
    """The saved model in a folder, one of transformers' there, or a published variant (name or spec) with `weights`.

    img_size: what is bound to a grid is resized by its rule; drop_path: stochastic depth of the last block. How the
    images of published weights were normalised is noted. BadSpec for what a saved model cannot become.
    """
    options: dict[str, Any] = {"img_size": img_size, "drop_path_rate": drop_path, "override": changes or None}
    if weights is None and not isinstance(model, Mapping):
        found = create_model(Path(model), **options)
    else:
        given = str(model) if isinstance(model, Path) else model
        found = create_model(given, weights or False, **options, fresh_classifier=True)
    if found.modality == "image" and found.resolved["stem"].get("in_chans") == 3:
        known = found.default_cfg
        seen = {name: list(known[name]) for name in ("mean", "std")} | _told(weights)
        found.extra = {"preprocess": {**seen, "interpolation": known["interpolation"], "fit": "crop"}} | found.extra
    return found


def _told(weights: str | None) -> dict[str, list[float]]:
    """Mean and deviation that a config of timm's beside the weights says, where there is one."""
    try:
        config = read_json(Path(weights or "") / CONFIG)
    except BadFile:
        return {}
    told = config.get("pretrained_cfg") if isinstance(config, dict) else None
    values = {name: told.get(name) for name in ("mean", "std")} if isinstance(told, dict) else {}
    fine = all(
        isinstance(v, list) and len(v) == 3 and all(isinstance(n, float | int) for n in v) for v in values.values()
    )
    return {name: list(value) for name, value in values.items() if value} if fine else {}


def fitted(
    net: Model, source: Any, *, seed: int, task: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Any, Task]:
    """The data as the model has learned to see such, and the task; other classes get a fresh layer."""
    data = open_for(net, source, seed=seed, options=options)
    learned = net.extra.get("task")
    before = learned if isinstance(learned, Mapping) and learned.get("kind") == data.task else {}
    chosen = task_of({"kind": data.task, **before, **task})
    chosen.check(data)
    if chosen.kind == "classify" and net.extra.get("classes") != list(data.classes):
        net.reset_classifier(data.num_classes)
    return data, chosen
