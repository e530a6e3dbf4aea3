"""An exported model, run by onnxruntime behind the surface of a torch module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadFile, CannotRun
from ..extras import need

METADATA = "formery"
"""Key of the file's metadata under which the model's facts travel."""


class OnnxModel(nn.Module):
    """Tensors in, tensors out; `facts` is what was saved with it (classes, preprocessing, ...)."""

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        super().__init__()
        ort = need("onnxruntime", "export")
        if not Path(path).is_file():
            raise BadFile(f"{path} does not exist")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or torch.get_num_threads()
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BadFile(
                f"{path} is no ONNX model that onnxruntime can run: {str(error).splitlines()[0][:160]}"
            ) from None
        entry = self.session.get_inputs()[0]
        self.input_name, self.input_shape = entry.name, list(entry.shape)
        self.whole_numbers = entry.type == "tensor(int64)"
        # So that whoever asks a module for its device and dtype gets an answer.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        meta = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        try:
            self.facts: dict[str, Any] = json.loads(meta) if meta else {}
        except ValueError:
            raise BadFile(f"{path}: the facts that came with the model are damaged") from None

    @property
    def extra(self) -> dict[str, Any]:
        """Classes, preprocessing and task, as on a `Model`."""
        return self.facts

    def forward(self, inputs: Tensor) -> Any:
        if (inputs.dtype == torch.int64) != self.whole_numbers:
            wanted = "whole numbers (tokens)" if self.whole_numbers else "numbers (images)"
            raise CannotRun(f"this model takes {wanted}, got {inputs.dtype}")
        outputs = self.session.run(None, {self.input_name: inputs.detach().cpu().contiguous().numpy()})
        tensors = [torch.from_numpy(output) for output in outputs]
        return tensors[0] if len(tensors) == 1 else tensors
