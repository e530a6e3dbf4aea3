"""Int8 by onnxruntime's static quantisation, with ranges from calibration data."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import BadData, CannotExport
from ..extras import need
from ..files import atomic
from .onnx_model import OnnxModel

PRODUCTS = ("Conv", "MatMul", "Gemm")
"""What is done in int8; everything else stays in floating point."""


class _Reader:
    """Calibration batches as onnxruntime asks for them: by `get_next`, or one after another."""

    def __init__(self, name: str, batches: Iterable[Tensor]) -> None:
        self.name, self.batches = name, iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        return next(self, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        return {self.name: next(self.batches).detach().cpu().contiguous().numpy()}


def quantise(path: str | Path, out: str | Path, calibration: Iterable[Tensor]) -> Path:
    """Write an int8 form of the ONNX model `path` to `out`: products in int8, weights a channel, activations by the
    ranges seen in `calibration` (input batches). BadData without any; CannotExport where onnxruntime refuses.

    Its outputs differ: measure its score before you ship it.
    """
    quantization = need("onnxruntime.quantization", "export")
    shapes = need("onnxruntime.quantization.shape_inference", "export")
    name = OnnxModel(path).input_name
    batches = iter(calibration)
    first = next(batches, None)
    if first is None:
        raise BadData("int8 needs calibration data, and there was none")
    with tempfile.TemporaryDirectory() as folder, atomic(out) as temporary:
        prepared = Path(folder) / "prepared.onnx"
        try:
            with _quiet():
                shapes.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
                quantization.quantize_static(
                    str(prepared), str(temporary), _Reader(name, chain([first], batches)), per_channel=True,
                    quant_format=quantization.QuantFormat.QDQ, op_types_to_quantize=list(PRODUCTS), reduce_range=False,
                    activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                )  # fmt: skip
        except OSError:
            raise
        except Exception as error:  # onnxruntime's own kinds, and whatever its tools stumble over
            first_line = (str(error).strip().splitlines() or [""])[0][:160]
            raise CannotExport(f"onnxruntime cannot quantise {path}: {type(error).__name__}: {first_line}") from error
        OnnxModel(temporary)  # it loads
    return Path(out)


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime gives its advice on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
