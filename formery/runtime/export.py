"""ONNX through torch.export, checked by running it at shapes that were never traced."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import BadSpec, CannotExport, CannotRun, FormeryError
from ..extras import need
from ..files import atomic
from ..measure.running import evaluating
from ..model import Model
from ..parts.strides import per_axis
from ..saving import formery_version
from .onnx_model import METADATA, OnnxModel

Dynamic = Literal["batch", "all"]
LARGEST = 2**31 - 2**20
"""Bytes of weights that one ONNX file can hold: protocol buffers end at 2 GiB."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it was checked."""

    path: str
    inputs: str
    dynamic: list[str]
    """Axes that may have any size."""
    traced_shape: list[int]
    checked_shapes: list[list[int]]
    """What it was run at: a single item among them."""
    max_difference: float
    """Largest absolute difference between the model's outputs and onnxruntime's, over all of these."""
    scale: float
    """Largest absolute output there."""
    bytes: int
    seconds: float

    @property
    def checked_shape(self) -> list[int]:
        """The largest of the shapes that it was run at."""
        return self.checked_shapes[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"checked_shape": self.checked_shape}


class _Only(nn.Module):
    """A model with its one input, which is all that an exporter should see."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


def example(model: Model, batch: int, size: int | Sequence[int] | None = None, seed: int = 0) -> Tensor:
    """Inputs that fit the model: normal images or series of its nominal size, or random tokens.

    `size` is the side, or (height, width), of images and videos, and the length of series and texts (48 where nothing
    says another, or less where the model is bound).
    """
    generator = torch.Generator().manual_seed(seed)
    if model.modality in ("image", "video"):
        channels, *frames, height, width = model.default_cfg["input_size"]
        height, width = (size, size) if isinstance(size, int) else size or (height, width)
        values = torch.randn(batch, channels, *frames, height, width, generator=generator)
        return values.to(next(model.parameters()).dtype)
    assert size is None or isinstance(size, int)
    if model.modality == "series":
        steps = size or model.resolved["stem"].get("length") or 48
        values = torch.randn(batch, steps, model.stem.channels or 1, generator=generator)
        return values.to(next(model.parameters()).dtype)
    longest = model.resolved["stem"].get("length") or 0
    length = size or (min(48, longest) if longest else 48)
    return torch.randint(0, model.resolved["stem"]["vocab"], (batch, length), generator=generator)


def export_onnx(model: Model, path: str | Path, *, dynamic: Dynamic = "batch", tolerance: float = 1e-4) -> ExportReport:
    """Write `model` as ONNX with a free batch size (texts: a free length too; images with `dynamic="all"`: any size).

    It is traced with a batch of 2 and then run by onnxruntime with batches of 3 and 1 and, where they are free, other
    lengths or sizes. CannotExport if outputs differ by more than `tolerance` of their scale, or where a part cannot be
    traced; then no file is left. What predict needs (classes, preprocessing) travels inside the file.
    """
    onnx = need("onnx", "export")
    need("onnxruntime", "export")
    need("onnxscript", "export")
    _check(model, dynamic)
    start = time.perf_counter()
    names, marks, inputs, others = _shapes(model, dynamic)
    with evaluating(model):
        proto = _traced(model, inputs, marks)
        proto.metadata_props.append(onnx.StringStringEntryProto(key=METADATA, value=json.dumps(facts(model))))
        with atomic(path) as temporary:
            onnx.save(proto, temporary)
            exported = OnnxModel(temporary)
            found = [_difference(model, exported, other, tolerance) for other in others]
    return ExportReport(
        path=str(path),
        inputs={"image": "images", "video": "videos", "series": "series"}.get(model.modality, "tokens"),
        dynamic=names,
        traced_shape=list(inputs.shape),
        checked_shapes=[list(other.shape) for other in others],
        max_difference=max(difference for difference, _ in found),
        scale=max(scale for _, scale in found),
        bytes=Path(path).stat().st_size,
        seconds=time.perf_counter() - start,
    )


def facts(model: Model) -> dict[str, Any]:
    """What travels with an exported model, as plain data."""
    own = {"vocab": model.resolved["stem"]["vocab"]} if model.modality == "text" else {}
    return {
        "formery": formery_version(),
        "name": model.name,
        "modality": model.modality,
        "num_classes": model.num_classes,
        "input_size": list(model.default_cfg["input_size"]),
        "plans": [plan["kind"] for plan in model.plans],
        **own,
        **model.extra,
    }


def _check(model: Model, dynamic: Dynamic) -> None:
    """What can be said before tracing."""
    for path, module in model.named_modules():
        if not getattr(module, "exports", True):
            raise CannotExport(f"{path}: {type(module).__name__} declares that it cannot be exported")
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > LARGEST:
        raise CannotExport(f"{model.name} has {size / 2**30:.1f} GiB of weights; an ONNX file holds less than 2")
    if dynamic not in ("batch", "all"):
        raise BadSpec(f"dynamic is 'batch' or 'all', got {dynamic!r}")
    if dynamic == "all" and model.modality not in ("image", "video"):
        raise BadSpec("any size is for images and videos; the length of texts and series is free as it is")
    if dynamic == "all":
        for path, mixer in model.mixers():
            if mixer.fixed_grid:
                raise CannotRun(f"{path} is bound to one image size; export with the batch free alone")


def _shapes(model: Model, dynamic: Dynamic) -> tuple[list[str], dict[int, Any], Tensor, list[Tensor]]:
    """Names of free axes, their marks for torch.export, inputs to trace, and others to check, the largest first."""
    marks: dict[int, Any] = {0: torch.export.Dim("batch")}
    inputs = example(model, 2)
    if model.modality not in ("image", "video"):
        marks[1] = torch.export.Dim("length")
        lengths = (max(2, inputs.shape[1] - 11), 1)
        others = [example(model, 3, lengths[0], seed=1), example(model, 1, lengths[1], seed=2)]
        return ["batch", "length"], marks, inputs, others
    if dynamic == "batch":
        return ["batch"], marks, inputs, [example(model, 3, seed=1), example(model, 1, seed=2)]
    marks |= {inputs.dim() - 2: torch.export.Dim.DYNAMIC, inputs.dim() - 1: torch.export.Dim.DYNAMIC}
    strides, (height, width) = per_axis(model.feature_info[-1]["reduction"], inputs.dim() - 2), inputs.shape[-2:]
    larger = example(model, 3, (height + strides[-2], width + 2 * strides[-1]), seed=1)
    return ["batch", "height", "width"], marks, inputs, [larger, example(model, 1, seed=2)]


def _traced(model: Model, inputs: Tensor, marks: dict[int, Any]) -> Any:
    """The ONNX protocol buffer; CannotExport where a part cannot be traced."""
    names = None if model.resolved["head"]["kind"] == "features" else ["scores"]
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Only(model), (inputs,), dynamo=True, dynamic_shapes=(marks,), input_names=["inputs"],
                output_names=names, verbose=False, custom_translation_table={torch.ops.aten.sort.stable: _sorted},
            )  # fmt: skip
            assert program is not None
            return program.model_proto
    except FormeryError:
        raise
    except (
        Exception
    ) as error:  # exporters raise kinds of their own, or whatever the model's code made them stumble over
        raise CannotExport(f"{model.name} cannot be traced: {_reason(error)}") from error


def _sorted(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort, which the exporter lacks: all of the axis by TopK, which keeps the order of equals."""
    from onnxscript import opset18

    op: Any = opset18
    count = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def _difference(model: Model, exported: OnnxModel, inputs: Tensor, tolerance: float) -> tuple[float, float]:
    """(largest difference, largest output) at these inputs; CannotExport where that is too much."""
    try:
        ran = exported(inputs)
    except CannotRun as error:
        raise CannotExport(f"the exported {model.name} does not run at {list(inputs.shape)}: {error}") from None
    with torch.no_grad():
        ours = model(inputs)
    pairs = list(zip(ran, ours, strict=True)) if isinstance(ours, list) else [(ran, ours)]
    for a, b in pairs:
        if a.shape != b.shape:
            raise CannotExport(f"the exported {model.name} gives {list(a.shape)} where the model gives {list(b.shape)}")
    worst = max((a.double() - b.double()).abs().max().item() for a, b in pairs)
    scale = max(b.double().abs().max().item() for _, b in pairs)
    if not worst <= tolerance * max(scale, 1e-6):  # nan is no agreement either
        shape = list(inputs.shape)
        raise CannotExport(f"the exported {model.name} differs by {worst:.2g} at {shape} (outputs reach {scale:.2g})")
    return worst, scale


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
