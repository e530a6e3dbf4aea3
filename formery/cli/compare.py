"""`formery compare`: several models side by side, interleaved in one process."""

from __future__ import annotations

import typer

from .models import is_saved, open_model, read_spec
from .output import JSON, console, emit


def command(
    models: list[str] = typer.Argument(help="Two or more: names, folders of saved models, spec files, .onnx files."),
    batch: int = typer.Option(1, min=1, help="Items at a time."),
    size: int | None = typer.Option(None, min=1, help="Side of the images, or length of the text."),
    seconds: float = typer.Option(15.0, min=0.1, help="Time to spend on all of them together."),
    bf16: bool = typer.Option(False, "--bf16", help="Weights and activations in bfloat16."),
    threads: int | None = typer.Option(None, min=1, help="Threads; torch's own choice unless given."),
    as_json: bool = JSON,
) -> None:
    """Time models in turn, so that ratios hold on a noisy machine; the first one is the base.

    Each row says which share of the machine's own measured matrix-product rate and memory bandwidth it reaches.

    Example: [bold]formery compare vit_small convnext_tiny poolformer_s12 --batch 8[/bold]
    """
    from functools import partial
    from pathlib import Path

    from ..errors import BadFile, BadSpec

    if len(models) < 2 or len(set(models)) < len(models):
        raise BadSpec("compare takes two or more different models")
    for name in models:
        if name.endswith(".onnx"):
            if not Path(name).is_file():
                raise BadFile(f"{name} does not exist")
        elif not is_saved(name):
            read_spec(name)
    import torch

    from ..measure import Work, compare
    from ..runtime.onnx_model import OnnxModel
    from .measure import _shape

    works = {}
    for name in models:
        if name.endswith(".onnx"):
            onnx = OnnxModel(name, threads=threads)
            shape = [
                size if isinstance(n, str) and size else batch if i == 0 else n for i, n in enumerate(onnx.input_shape)
            ]
            numbers = [n if isinstance(n, int) else 128 for n in shape]
            inputs = torch.randint(0, 255, numbers) if onnx.whole_numbers else torch.randn(numbers)
            works[name] = Work(partial(onnx, inputs))
        else:
            model = open_model(name).eval()
            if bf16:
                model = model.to(torch.bfloat16)
            works[name] = Work.of(model, _shape(model, batch, size))
    result = compare(works, seconds=seconds, threads=threads)
    emit(result.as_dict()) if as_json else console().print(result)
