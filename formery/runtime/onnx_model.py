"""An exported model, run by onnxruntime behind the surface of a torch module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadFile, CannotRun
from ..extras import need

METADATA = "formery"
"""Key of the file's metadata under which the model's facts travel."""

DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
}
"""What inputs may be, by onnxruntime's names."""

LENGTH, SIDE = 128, 224
"""Sizes of free axes in examples, where nothing says better ones."""


class OnnxModel(nn.Module):
    """Tensors in, tensors out; `facts` is what was saved with it (classes, preprocessing, ...).

    Any ONNX model with one input can be run; BadFile for others, and for what is no ONNX model.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.session = _session(self.path, threads)
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in DTYPES:
            given = ", ".join(f"{entry.name}: {entry.type}" for entry in inputs) or "nothing"
            raise BadFile(f"{path} takes {given}; formery runs models with one input of numbers or tokens")
        self.input_name, self.input_shape = inputs[0].name, list(inputs[0].shape)
        self.dtype = DTYPES[inputs[0].type]
        # So that whoever asks a module for its device and dtype gets an answer.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        self.facts = _facts(self.session, self.path)

    @property
    def whole_numbers(self) -> bool:
        """Whether it takes tokens."""
        return not self.dtype.is_floating_point

    @property
    def extra(self) -> dict[str, Any]:
        """Classes, preprocessing and task, as on a `Model`."""
        return self.facts

    def shape_of(self, batch: int, size: int | None = None) -> tuple[int, ...]:
        """The shape of an input: free axes as asked for, or as the facts have them; CannotRun for fixed ones."""
        nominal = self.facts.get("input_size")
        known = [batch, *nominal] if isinstance(nominal, list) and not self.whole_numbers else []
        default = LENGTH if self.whole_numbers else SIDE
        axes = len(self.input_shape)
        sized = (1,) if self.whole_numbers else (axes - 2, axes - 1) if axes == 5 else (2, 3)
        numbers: list[int] = []
        for axis, extent in enumerate(self.input_shape):
            asked = batch if axis == 0 else size if axis in sized else None
            if isinstance(extent, int):
                if asked not in (None, extent):
                    raise CannotRun(
                        f"{self.path} was exported for inputs of {self.input_shape}, no other size or batch"
                    )
                numbers.append(extent)
            else:
                numbers.append(asked or (known[axis] if axis < len(known) and known[axis] else default))
        return tuple(numbers)

    def example(self, shape: Sequence[int], seed: int = 0) -> Tensor:
        """Inputs of a shape: normal draws, or uniform tokens."""
        generator = torch.Generator().manual_seed(seed)
        if self.whole_numbers:
            vocab = int(self.facts.get("vocab") or 2)
            return torch.randint(0, vocab, tuple(shape), generator=generator).to(self.dtype)
        return torch.randn(tuple(shape), generator=generator).to(self.dtype)

    def forward(self, inputs: Tensor) -> Any:
        if inputs.dtype.is_floating_point == self.whole_numbers:
            wanted = "whole numbers (tokens)" if self.whole_numbers else "numbers (images)"
            raise CannotRun(f"{self.path} takes {wanted}, got {inputs.dtype}")
        given = inputs.detach().to("cpu", self.dtype).contiguous().numpy()
        try:
            outputs = self.session.run(None, {self.input_name: given})
        except Exception as error:  # onnxruntime's own kinds, one for each of its codes
            shape = list(inputs.shape)
            raise CannotRun(
                f"{self.path} does not run on {shape} (it takes {self.input_shape}): {_first(error)}"
            ) from None
        tensors = [torch.from_numpy(output) for output in outputs]
        return tensors[0] if len(tensors) == 1 else tensors


def _session(path: Path, threads: int | None) -> Any:
    ort = need("onnxruntime", "export")
    if not path.is_file():
        raise BadFile(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; give an .onnx file")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # Threads that spin while they wait halve the speed of whatever runs in between, another model or a server's work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, one for each of its codes
        raise BadFile(f"{path} is no ONNX model that onnxruntime can run: {_first(error)}") from None


def _facts(session: Any, path: Path) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    try:
        facts = json.loads(text) if text else {}
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise BadFile(f"{path}: the facts that came with the model are damaged; export it again")
    return facts


def _first(error: Exception) -> str:
    """What onnxruntime says, without its codes."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition(" : ")[2][:160].strip()
