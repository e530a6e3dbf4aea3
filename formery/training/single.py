"""One model on one data set: from a spec or a saved model to a saved model and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..create import create_model, model_spec
from ..data import open_data
from ..errors import BadSpec, Unwritable
from ..model import Model
from ..tasks import task_of
from ..tasks.task import Task
from . import pictures as draw
from .config import TrainConfig
from .finishing import RESULT, finished
from .loop import train
from .pretrained import fitted, loaded
from .processes import is_first
from .start import check_overruled, sized_by
from .started import TRAINING, merged, recall

LONGEST = 1 << 40
"""Steps, where the data are yet to say how many epochs are."""


def train_one(
    model: str | Path | Mapping[str, Any],
    source: Any,
    out: str | Path,
    config: TrainConfig | Mapping[str, Any],
    *,
    task: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | None = None,
    image_size: int | None = None,
    drop_path: float | None = None,
    epochs: float | None = None,
    workers: int = 0,
    pictures: bool = False,
    resume: bool = False,
    devices: str | int = "auto",
    time_limit: float | None = None,
    quiet: bool = False,
    called: str | None = None,
) -> dict[str, Any]:
    """Train a spec from its first weights, or the saved model in a folder further, and save it to `out`/model.

    config: what `TrainConfig` takes (`steps` is needed, unless `epochs` are given); its seed is that of weights, data
    and order. task, options: options of the data's task and of their opener. changes: overrides of the spec. weights:
    published ones, for a spec. image_size: of the images, to which a trained model is resized. drop_path: stochastic
    depth of the last block. workers: processes that prepare batches. pictures: whether curves, augmented images and
    predictions are drawn into `out`/pictures. resume: go on with the training in `out`, with the options it was started
    with; what is given again must agree. called: the model, as it is to be named. Returns the content of
    `out`/result.json. A trained model sees the data at its own size, normalised as those of its first training; a
    classifier gets a fresh last layer where the classes are others. Unwritable where `out` holds another run.
    """
    out = Path(out)
    if not resume and (out / RESULT).exists():
        raise Unwritable(f"{out} holds a run already; choose another place, or go on with resume")
    given = config.model_dump(exclude_unset=True) if isinstance(config, TrainConfig) else dict(config)
    told: dict[str, Any] = {
        "config": given, "task": task or {}, "changes": changes or {}, "options": options or {}, "weights": weights,
        "image_size": image_size, "drop_path": drop_path, "epochs": epochs,
    }  # fmt: skip
    if resume:
        told = _as_before(recall(out), told)
        given, task, changes, options = (told[name] for name in ("config", "task", "changes", "options"))
        weights, image_size, drop_path, epochs = (
            told[name] for name in ("weights", "image_size", "drop_path", "epochs")
        )
    told |= {"model": called or (None if isinstance(model, Mapping) else str(model)), "data": _called(source)}
    if epochs is not None and "steps" in given:
        raise BadSpec("steps and epochs both say how long to train; give one of them")
    settled = TrainConfig.of(given if epochs is None else given | {"steps": LONGEST})
    options = dict(options or {})
    with torch.random.fork_rng():
        torch.manual_seed(settled.seed)
        if isinstance(model, Mapping) and weights is None:
            options |= {} if image_size is None else {"image_size": image_size}
            net, data, chosen = _fresh(model, source, settled.seed, task or {}, changes or {}, options, drop_path)
        else:
            net = loaded(model, weights=weights, img_size=image_size, drop_path=drop_path, changes=changes)
            data, chosen = fitted(net, source, seed=settled.seed, task=task or {}, options=options)
    if epochs is not None:
        settled = TrainConfig.of(given | {"steps": steps_of(epochs, data, chosen, settled.batch_size)})
    if pictures and is_first(devices):
        draw.before(data, out)
    result = train(
        net, data, chosen, settled, folder=out / TRAINING, resume=resume, devices=devices, workers=workers,
        time_limit=time_limit, quiet=quiet, told=told,
    )  # fmt: skip
    return finished(net, data, chosen, result, out, devices=devices, pictures=pictures)


def _as_before(before: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Options of a training's start, with what is given again instead; steps and epochs are one another's."""
    named = {name: value for name, value in given.items() if value is not None}
    kept = {name: value for name, value in before.items() if name in given}
    if "steps" in given["config"]:
        kept.pop("epochs", None)
    elif "epochs" in named:
        kept["config"] = {name: value for name, value in kept.get("config", {}).items() if name != "steps"}
    return dict.fromkeys(given) | merged(kept, named)


def _called(source: Any) -> str | None:
    return str(source) if isinstance(source, str | Path) else None


def steps_of(epochs: float, data: Any, task: Task, batch_size: int) -> int:
    """Training steps of so many epochs."""
    length = task.options().get("length")
    one = data.steps_per_epoch(batch_size) if length is None else data.steps_per_epoch(batch_size, length)
    return max(1, round(epochs * one))


def _fresh(
    spec: Mapping[str, Any], source: Any, seed: int, task: Mapping[str, Any], changes: Mapping[str, Any],
    options: Mapping[str, Any], drop_path: float | None,
) -> tuple[Model, Any, Task]:  # fmt: skip
    """A model with its first weights, fitted to the data."""
    resolved = model_spec(spec, override=changes or None, drop_path_rate=drop_path)
    data = open_data(source, seed=seed, **options) if isinstance(source, str | Path) else source
    check_overruled(changes, data)
    chosen = task_of({"kind": data.task, **task})
    with sized_by(data):
        return create_model(chosen.fit_spec(resolved, data)), data, chosen
