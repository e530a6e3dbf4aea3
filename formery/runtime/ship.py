"""Int8 as it is shipped: calibrated on training data, judged on validation data, kept only within the user's bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data import open_data
from ..tasks import task_of
from .int8 import quantise
from .onnx_model import OnnxModel

NUM_CALIBRATION, BATCH = 256, 32


def points_lost(task: Any, before: float, after: float) -> float:
    """How much worse `after` is than `before`: in percentage points of a share, in hundredths of other units."""
    return 100 * (before - after if task.direction == "higher" else after - before)


def calibration(data: Any, task: Any) -> Iterator[Tensor]:
    """Batches of training inputs, without augmentation."""
    sample = (
        data.sample(NUM_CALIBRATION) if data.modality == "image" else data.sample(NUM_CALIBRATION // 8, task.length)
    )
    return iter(sample.split(BATCH))


def ship_int8(model: nn.Module, onnx: str | Path, out: str | Path, source: Any, max_drop: float) -> dict[str, Any]:
    """Quantise the exported `onnx`, judge it on the validation part of `source`, keep it at `out` if it costs at most
    `max_drop` points of the score. Returns scores and sizes; `shipped` says whether it was kept."""
    data = open_data(source) if isinstance(source, str | Path) else source
    extra = getattr(model, "extra", {})
    task = task_of(extra.get("task", data.task))
    quantise(onnx, out, calibration(data, task))
    before = task.evaluate(OnnxModel(onnx), data, "validation")[task.metric]
    after = task.evaluate(OnnxModel(out), data, "validation")[task.metric]
    lost = points_lost(task, float(before), float(after))
    shipped = lost <= max_drop
    size = Path(out).stat().st_size
    if not shipped:
        Path(out).unlink()
    return {
        "metric": task.metric, "before": before, "score": after, "points_lost": lost, "max_drop": max_drop,
        "shipped": shipped, "bytes": size,
    }  # fmt: skip
