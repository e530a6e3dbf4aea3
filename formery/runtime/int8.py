"""Int8 by onnxruntime's static quantisation, with ranges from calibration data."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import BadData, CannotExport
from ..extras import need
from ..files import atomic

PRODUCTS = ("Conv", "MatMul", "Gemm")
"""What is done in int8; everything else stays in floating point."""


class _Reader:
    """Calibration batches as onnxruntime asks for them."""

    def __init__(self, name: str, batches: Iterable[Tensor]) -> None:
        self.name, self.batches, self.count = name, iter(batches), 0

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        if batch is None:
            return None
        self.count += 1
        return {self.name: batch.detach().cpu().contiguous().numpy()}

    def __iter__(self) -> Iterator[Any]:
        return iter(self.get_next, None)

    def __next__(self) -> dict[str, Any]:
        item = self.get_next()
        if item is None:
            raise StopIteration
        return item


def quantise(path: str | Path, out: str | Path, calibration: Iterable[Tensor]) -> Path:
    """Write an int8 form of the ONNX model `path` to `out`: products in int8, weights a channel, activations by the
    ranges seen in `calibration` (input batches). BadData without any; CannotExport where onnxruntime refuses.

    Its outputs differ: measure its score before you ship it.
    """
    need("onnxruntime", "export")
    quantization = need("onnxruntime.quantization", "export")
    shapes = need("onnxruntime.quantization.shape_inference", "export")
    from .onnx_model import OnnxModel

    reader = _Reader(OnnxModel(path).input_name, calibration)
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises on the root logger
    try:
        with tempfile.TemporaryDirectory() as folder, atomic(out) as temporary:
            prepared = Path(folder) / "prepared.onnx"
            shapes.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared), str(temporary), reader, quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS), per_channel=True, reduce_range=False,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
            if not reader.count:
                raise BadData("int8 needs calibration data, and there was none")
            OnnxModel(temporary)
    except (BadData, CannotExport):
        raise
    except Exception as error:
        lines = str(error).splitlines()
        raise CannotExport(
            f"onnxruntime cannot quantise {path}: {type(error).__name__}: {lines[0][:160] if lines else ''}"
        ) from error
    finally:
        root.setLevel(level)
    return Path(out)
