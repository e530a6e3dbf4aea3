"""Data as a saved model was trained to see them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data import open_data
from ..data.sources import opener_of
from ..errors import BadData
from ..measure.inputs import nominal_shape
from ..model import Model
from ..tasks import task_of
from ..tasks.task import Task


def open_for(model: Model, source: Any, *, seed: int = 0, options: Mapping[str, Any] | None = None) -> Any:
    """`source` opened with the model's image size and channels, and normalised as its training data were.

    Data that are open already stay as they are. BadData where the model takes something else than these data are.
    """
    if not isinstance(source, str | Path):
        check_inputs(model, source)
        return source
    extra = model.extra
    opener, _ = opener_of(source, None)
    known = inspect.signature(opener).parameters if opener is not None else {}
    wanted: dict[str, Any] = {}
    if model.modality == "image":
        _, channels, height, width = nominal_shape(model)
        seen = extra.get("preprocess") or {}
        wanted = {"image_size": height if height == width else [height, width], "in_chans": channels}
        wanted |= {name: seen[name] for name in ("interpolation", "fit") if name in seen}
    chosen = {name: value for name, value in wanted.items() if name in known} | dict(options or {})
    data: Any = open_data(source, seed=seed, **chosen)
    check_inputs(model, data)
    if model.modality == "image" and "preprocess" in extra:
        data.normalise_as(extra["preprocess"])
    return data


def check_inputs(model: Model, data: Any) -> None:
    """BadData unless items of `data` go into the model."""
    if data.modality != model.modality:
        raise BadData(f"{data.name} is {data.modality} data, {model.name} takes {model.modality}; give other data")
    if model.modality == "text":
        vocab = model.resolved["stem"]["vocab"]
        if data.vocab > vocab:
            raise BadData(f"{data.name} has {data.vocab} kinds of tokens, {model.name} knows {vocab}")
        return
    size = data.image_size
    shape = (data.in_chans, *((size, size) if isinstance(size, int) else size))
    wanted = nominal_shape(model)[1:]
    if shape != wanted:
        ours, theirs = ("x".join(map(str, s)) for s in (wanted, shape))
        raise BadData(f"{data.name} has images of {theirs} (channels, height, width), {model.name} takes {ours}")


def task_for(model: Model, data: Any) -> Task:
    """The task that the model was saved for, or the data's own; BadData where the two do not go together."""
    task = task_of(model.extra.get("task", data.task))
    task.check(data)
    classes = model.extra.get("classes")
    if classes is not None and list(classes) != list(getattr(data, "classes", classes)):
        raise BadData(f"{data.name} has other classes than {model.name} has learned; give the data of its training")
    return task
