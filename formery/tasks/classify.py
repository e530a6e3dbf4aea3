"""One class for each image."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..create import model_spec
from ..errors import BadSpec
from .distillation import from_labels
from .task import KEPT_NAN, SHARE, Batch, Split, Task, check_split, judging

BINS = 15


class Classify(Task):
    """Cross entropy over classes, its targets smoothed by `label_smoothing` in training (arXiv 1512.00567, section 7).

    Targets are labels (B,) or, where images are mixed, shares of the classes (B, classes).

    Judged by accuracy, macro F1, mean cross entropy in nats (never smoothed) and the expected calibration error over 15
    bins of confidence (arXiv 1706.04599, equation 3).
    """

    kind, modality = "classify", "image"
    metric, unit, direction = "accuracy", SHARE, "higher"
    metrics = ("accuracy", "f1", "calibration_error", "loss", "items")

    def __init__(self, *, label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def options(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing}

    def check_model(self, model: nn.Module, data: Any) -> None:
        images, labels = self.train_batch(data, 0, 1)
        with judging(model, None) as place:
            _check_scores(model(images.to(place, _dtype(model))), labels, data.num_classes)

    def head_spec(self, data: Any) -> dict[str, Any]:
        self.check(data)
        return {"kind": "classes", "num_classes": data.num_classes}

    def fit_spec(self, spec: Any, data: Any) -> dict[str, Any]:
        self.check(data)
        resolved = model_spec(spec)
        for part, options in (("stem", ("in_chans", "img_size")), ("head", ("num_classes",))):
            missing = [option for option in options if option not in resolved[part]]
            if missing:
                kind = resolved[part]["kind"]
                raise BadSpec(
                    f"{part} {kind!r} has no {' or '.join(missing)}: classify needs a model with an image stem "
                    "(patches, conv) and the head classes"
                )
        size = data.image_size
        wanted = size if isinstance(size, int) else list(size)
        return model_spec(resolved, num_classes=data.num_classes, in_chans=data.in_chans, img_size=wanted)

    def train_batch(self, data: Any, step: int, batch_size: int) -> Batch:
        batch: Batch = data.train_batch(step, batch_size)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch
        return from_labels(model(images.to(_dtype(model))), labels, self.label_smoothing)

    def evaluate(
        self,
        model: nn.Module,
        data: Any,
        split: Split = "validation",
        batch_size: int = 256,
        device: torch.device | str | None = None,
    ) -> dict[str, float | int]:
        self.check(data)
        check_split(split)
        from ..interop.torchvision import declare_missing_operators

        declare_missing_operators()
        from torchmetrics import MeanMetric, MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score

        part = getattr(data, split)()
        num_classes, num_items = data.num_classes, 0
        with judging(model, device) as place:
            metrics = MetricCollection(
                {
                    "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                    "f1": MulticlassF1Score(num_classes, average="macro"),
                    "calibration_error": MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1"),
                }
            ).to(place)
            mean_loss = MeanMetric(nan_strategy=KEPT_NAN).to(place)
            dtype = _dtype(model)
            for images, labels in part.batches(batch_size):
                images, labels = images.to(place, dtype), labels.to(place)
                scores = model(images).float()
                _check_scores(scores, labels, num_classes)
                metrics.update(scores.softmax(-1), labels)
                mean_loss.update(F.cross_entropy(scores, labels), len(labels))
                num_items += len(labels)
            found = {name: float(value) for name, value in metrics.compute().items()}
        return {**found, "loss": float(mean_loss.compute()), "items": num_items}

    def extra(self, data: Any) -> dict[str, Any]:
        return super().extra(data) | {"classes": list(data.classes), "preprocess": dict(data.preprocess)}


def _dtype(model: nn.Module) -> torch.dtype:
    """Of the numbers that the model takes."""
    return next(model.parameters()).dtype


def _check_scores(scores: Tensor, labels: Tensor, num_classes: int) -> None:
    if scores.shape != (len(labels), num_classes):
        raise BadSpec(
            f"the model gives {tuple(scores.shape)} for {len(labels)} images of {num_classes} classes; "
            "build it from task.fit_spec(spec, data)"
        )
