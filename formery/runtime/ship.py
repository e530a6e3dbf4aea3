"""Int8 as it is shipped: calibrated on training data, judged on validation data, kept only within the user's bound."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..files import atomic
from ..model import Model
from ..tasks.task import Task
from .given import open_for, task_for
from .int8 import quantise
from .onnx_model import OnnxModel

NUM_CALIBRATION, BATCH = 256, 32


def calibration(data: Any, task: Any) -> Iterator[Tensor]:
    """Batches of training inputs, without augmentation."""
    sample = (
        data.sample(NUM_CALIBRATION) if data.modality == "image" else data.sample(NUM_CALIBRATION // 8, task.length)
    )
    return iter(sample.split(BATCH))


def ship_int8(model: Model, onnx: str | Path, out: str | Path, source: Any, max_drop: float) -> dict[str, Any]:
    """Quantise the exported `onnx`, judge it on the validation part of `source`, and write it to `out` if it costs at
    most `max_drop` points of the score.

    Returns scores and sizes; `shipped` says whether it was written. BadData where the model was not trained for these.
    """
    data = open_for(model, source)
    task: Task = task_for(model, data)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "int8.onnx"
        quantise(onnx, draft, calibration(data, task))
        before = float(task.evaluate(OnnxModel(onnx), data, "validation")[task.metric])
        after = float(task.evaluate(OnnxModel(draft), data, "validation")[task.metric])
        lost = task.points_lost(before, after)
        size = draft.stat().st_size
        shipped = lost <= max_drop
        if shipped:
            with atomic(out) as temporary:
                shutil.copyfile(draft, temporary)
    return {
        "metric": task.metric, "before": before, "score": after, "points_lost": lost, "max_drop": max_drop,
        "shipped": shipped, "bytes": size,
    }  # fmt: skip
