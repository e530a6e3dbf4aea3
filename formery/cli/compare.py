"""`formery compare`: several models side by side, interleaved in one process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer

from .models import Subject, find, input_shape, open_model
from .options import BATCH, SIZE, THREADS, above_zero
from .output import JSON, console, emit

if TYPE_CHECKING:
    from ..measure import Work


def command(
    models: list[str] = typer.Argument(help="Two or more: names, folders of saved models, spec files, .onnx files."),
    batch: int = BATCH,
    size: int | None = SIZE,
    seconds: float = typer.Option(15.0, callback=above_zero, help="Time to spend on all of them together."),
    bf16: bool = typer.Option(False, "--bf16", help="Weights and activations in bfloat16."),
    threads: int | None = THREADS,
    as_json: bool = JSON,
) -> None:
    """Time models in turn, so that ratios hold on a noisy machine; the first one is the base.

    Each row says which share of the machine's own measured matrix-product rate and memory bandwidth it reaches.

    Example: [bold]formery compare vit_small convnext_tiny poolformer_s12 --batch 8[/bold]
    """
    from ..errors import BadSpec

    if len(models) < 2 or len(set(models)) < len(models):
        raise BadSpec("compare takes two or more different models")
    subjects = [find(name, onnx=True) for name in models]
    exported = [subject.text for subject in subjects if subject.kind == "onnx"]
    if bf16 and exported:
        raise BadSpec(f"{exported[0]} runs in the numbers it was exported with; leave --bf16 or the .onnx files out")

    from ..measure import compare

    works = {
        subject.text: _exported(subject, batch, size, threads) if subject.kind == "onnx"
        else _model(subject, batch, size, bf16)
        for subject in subjects
    }  # fmt: skip
    result = compare(works, seconds=seconds, threads=threads)
    if as_json:
        emit(result.as_dict())
    else:
        console().print(result)


def _model(subject: Subject, batch: int, size: int | None, bf16: bool) -> Work:
    import torch

    from ..measure import Work
    from .memory import check_room

    model = open_model(subject)
    if bf16:
        model = model.to(torch.bfloat16)
    shape = input_shape(model, batch, size)
    check_room(shape)
    return Work.of(model, shape)


def _exported(subject: Subject, batch: int, size: int | None, threads: int | None) -> Work:
    from ..measure import Work
    from ..runtime.onnx_model import OnnxModel
    from .memory import check_room

    model = OnnxModel(subject.path, threads=threads)
    shape = model.shape_of(batch, size)
    check_room(shape)
    return Work(partial(model, model.example(shape)))
