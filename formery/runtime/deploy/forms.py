"""The forms in which a model can be run, as plain data, and what runs each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...acceleration import accelerate
from ...errors import BadSpec, CannotRun
from ...registry import nearest
from .convolved import by_convolutions

Runner = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in float32 to scores in float32."""
Layout = Literal["contiguous", "channels last"]
ONNX, INT8 = "model.onnx", "int8.onnx"


@dataclass(frozen=True)
class Form:
    """One way to run a model."""

    says: str
    dtype: torch.dtype = torch.float32
    packed: bool = False
    compiled: Literal["fixed", "free"] | None = None
    """By torch.compile, for one shape of images or for any batch."""
    file: str | None = None
    """The exported file that onnxruntime runs; None where torch runs the model."""
    approximate: bool = False
    """Whether more than rounding may change."""


FORMS: dict[str, Form] = {
    "eager": Form("torch, float32"),
    "packed": Form("torch, float32, a second copy of the dense weights in the order of the products", packed=True),
    "compiled": Form("torch.compile with frozen weights, float32, for this batch", compiled="fixed"),
    "compiled-free": Form("torch.compile with frozen weights, float32, for any batch", compiled="free"),
    "bfloat16": Form("torch, bfloat16", torch.bfloat16, approximate=True),
    "bfloat16-packed": Form("torch, bfloat16, with a second copy", torch.bfloat16, packed=True, approximate=True),
    "bfloat16-compiled": Form("torch.compile, bfloat16", torch.bfloat16, compiled="fixed", approximate=True),
    "onnx": Form("onnxruntime, float32", file=ONNX),
    "int8": Form("onnxruntime, products in whole numbers of 8 bits", file=INT8, approximate=True),
}
USUAL = ("eager", "packed", "bfloat16", "bfloat16-packed", "onnx")
"""What is tried unless said: the rest takes a compiler, or data to calibrate on."""


def forms_of(names: Iterable[str]) -> tuple[str, ...]:
    """The names, eager first; `all` is every form. BadSpec for one that there is not."""
    chosen = ["eager"]
    for name in names:
        for one in FORMS if name == "all" else [name]:
            if one not in FORMS:
                raise BadSpec(f"no form is called {one!r}; {nearest(one, [*FORMS, 'all'])}")
            if one not in chosen:
                chosen.append(one)
    return tuple(chosen)


def runner(name: str, model: nn.Module, folder: Path, layout: Layout, *, threads: int | None = None) -> Runner:
    """What runs a form. `model` is left as it is; exported files are looked for in `folder`."""
    form = FORMS[name]
    if form.file is not None:
        from ..onnx_model import OnnxModel

        return OnnxModel(folder / form.file, threads=threads)
    own = copy.deepcopy(model).eval().requires_grad_(False).to(form.dtype)
    memory = torch.channels_last if layout == "channels last" else torch.contiguous_format
    for module in own.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    if form.packed:
        accelerate(own, pack=True)
    if form.compiled == "fixed":
        by_convolutions(own)
    call: Any = compiled(own, free_batch=form.compiled == "free") if form.compiled else own

    def run(images: Tensor) -> Tensor:
        given = images.to(form.dtype).contiguous(memory_format=memory)
        with torch.no_grad():
            scores: Tensor = call(given)
        return scores.float()

    return run


def compiled(model: nn.Module, *, free_batch: bool = False) -> Callable[[Tensor], Tensor]:
    """The model compiled, its weights taken for constants. CannotRun where the machine has no compiler for it.

    With `free_batch` one program serves any batch, a single image included. Its dense layers then are oneDNN's, with
    weights in that library's order and activations fused, where a program for a fixed batch takes MKL's unless they
    are written `by_convolutions`.
    """
    from torch._dynamo import config as tracing
    from torch._inductor import config
    from torch.fx.experimental import _config as shapes

    program = torch.compile(model)

    def run(images: Tensor) -> Tensor:
        if free_batch:
            images = images.detach()  # the mark stays on a tensor of our own
            torch._dynamo.mark_dynamic(images, 0)
        # Sizes that other models of the process have come in say nothing about this one's: the batch alone is free.
        alone = tracing.patch(automatic_dynamic_shapes=False)
        with alone, config.patch(freezing=True), shapes.patch(backed_size_oblivious=free_batch):  # type: ignore[attr-defined]
            try:
                found: Tensor = program(images)
            except Exception as error:  # whatever a compiler's stack stumbles over
                if type(error).__module__.startswith("torch._") or "Inductor" in type(error).__name__:
                    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                    raise CannotRun(f"torch.compile does not run this model here: {first}") from error
                raise
        return found

    return run
