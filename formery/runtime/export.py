"""ONNX through torch.export, checked by running it at a shape that was never traced."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import CannotExport, CannotRun
from ..extras import need
from ..files import atomic
from ..model import Model
from ..saving import formery_version
from .onnx_model import METADATA, OnnxModel

Dynamic = Literal["batch", "all"]


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it was checked."""

    path: str
    inputs: str
    dynamic: list[str]
    """Axes that may have any size."""
    traced_shape: list[int]
    checked_shape: list[int]
    max_difference: float
    """Largest absolute difference between the model's outputs and onnxruntime's at `checked_shape`."""
    scale: float
    """Largest absolute output there."""
    bytes: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class _Only(nn.Module):
    """A model with its one input, which is all that an exporter should see."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


def example(model: Model, batch: int, size: int | None = None, seed: int = 0) -> Tensor:
    """Inputs that fit the model: normal images of its nominal size, or random tokens, 48 of them unless `size` is given."""
    generator = torch.Generator().manual_seed(seed)
    if model.modality == "image":
        channels, height, width = model.default_cfg["input_size"]
        if size is not None:
            height = width = size
        return torch.randn(batch, channels, height, width, generator=generator).to(next(model.parameters()).dtype)
    longest = model.resolved["stem"].get("length") or 0
    length = size or (min(48, longest) if longest else 48)
    return torch.randint(0, model.resolved["stem"]["vocab"], (batch, length), generator=generator)


def export_onnx(model: Model, path: str | Path, *, dynamic: Dynamic = "batch", tolerance: float = 1e-4) -> ExportReport:
    """Write `model` as ONNX with a free batch size (texts: a free length too; images with `dynamic="all"`: any size).

    It is traced with a batch of 2 and then run by onnxruntime with a batch of 3 and, where it is free, another length
    or size. CannotExport if outputs differ by more than `tolerance` of their scale, or where a part cannot be traced;
    then no file is left. What predict needs (classes, preprocessing) travels inside the file.
    """
    onnx = need("onnx", "export")
    need("onnxruntime", "export")
    need("onnxscript", "export")
    _check_parts(model)
    was_training, start = model.training, time.perf_counter()
    model.eval()
    names, shapes, inputs, other = _shapes(model, dynamic)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Only(model), (inputs,), dynamo=True, dynamic_shapes=(shapes,), input_names=["inputs"],
                output_names=_output_names(model), verbose=False,
            )  # fmt: skip
            assert program is not None
        proto = program.model_proto
        proto.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=json.dumps(facts(model))))
        with atomic(path) as temporary:
            onnx.save(proto, temporary)
            difference, scale = _difference(model, temporary, other)
            if not difference <= tolerance * max(scale, 1e-6):
                raise CannotExport(
                    f"the exported {model.name} differs by {difference:.2g} (outputs reach {scale:.2g}) at {list(other.shape)}"
                )
    except CannotExport:
        raise
    except Exception as error:
        if type(error).__module__.startswith("formery"):
            raise
        raise CannotExport(f"{model.name} cannot be traced: {_reason(error)}") from error
    finally:
        model.train(was_training)
    return ExportReport(
        str(path), "images" if model.modality == "image" else "tokens", names, list(inputs.shape), list(other.shape),
        difference, scale, Path(path).stat().st_size, time.perf_counter() - start,
    )  # fmt: skip


def facts(model: Model) -> dict[str, Any]:
    """What travels with an exported model, as plain data."""
    return {
        "formery": formery_version(),
        "name": model.name,
        "modality": model.modality,
        "num_classes": model.num_classes,
        "input_size": list(model.default_cfg["input_size"]),
        "plans": [plan["kind"] for plan in model.plans],
        **model.extra,
    }


def _check_parts(model: Model) -> None:
    for path, module in model.named_modules():
        if not getattr(module, "exports", True):
            raise CannotExport(f"{path}: {type(module).__name__} declares that it cannot be exported")


def _output_names(model: Model) -> list[str] | None:
    return ["scores"] if model.resolved["head"]["kind"] != "features" else None


def _shapes(model: Model, dynamic: Dynamic) -> tuple[list[str], dict[int, Any], Tensor, Tensor]:
    """Names of free axes, their marks for torch.export, inputs to trace, and others to check."""
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    names = ["batch"]
    if model.modality == "text":
        free[1] = torch.export.Dim("length")
        inputs = example(model, 2)
        other = example(model, 3, max(2, inputs.shape[1] - 11), seed=1)
        return [*names, "length"], free, inputs, other
    inputs, other = example(model, 2), example(model, 3, seed=1)
    if dynamic == "all":
        bound = [path for path, mixer in model.mixers() if mixer.bound]
        if bound:
            raise CannotRun(f"{bound[0]} is bound to one image size; export with dynamic='batch'")
        free |= {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
        names += ["height", "width"]
        stride = model.feature_info[-1]["reduction"]
        other = example(model, 3, inputs.shape[-1] + 2 * stride, seed=1)
    return names, free, inputs, other


def _difference(model: Model, path: Path, inputs: Tensor) -> tuple[float, float]:
    ran = OnnxModel(path)(inputs)
    with torch.no_grad():
        ours = model(inputs)
    pairs = list(zip(ran, ours, strict=True)) if isinstance(ours, list) else [(ran, ours)]
    worst = max((a.double() - b.double()).abs().max().item() for a, b in pairs)
    return worst, max(b.abs().max().item() for _, b in pairs)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn about their own insides; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
