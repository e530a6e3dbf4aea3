"""`formery measure`: what a model costs."""

from __future__ import annotations

from typing import Any

import typer

from .models import MODEL_HELP, SET, is_saved, open_model, read_spec
from .output import JSON, console, emit, table


def command(
    model: str = typer.Argument(help=MODEL_HELP),
    set_: list[str] = SET,
    batch: int = typer.Option(1, min=1, help="Items at a time."),
    size: int | None = typer.Option(None, min=1, help="Side of the images, or length of the text."),
    layers: bool = typer.Option(False, "--layers", help="Also a table of parameters, MACs and time a layer."),
    context: str = typer.Option(
        "", help="Lengths, as '1024,4096': prefill, decode and state bytes of a streaming model."
    ),
    count_only: bool = typer.Option(
        False, "--count", help="Count parameters and MACs alone; needs no memory for weights."
    ),
    threads: int | None = typer.Option(None, min=1, help="Threads; torch's own choice unless given."),
    as_json: bool = JSON,
) -> None:
    """Count parameters and MACs of a model, and measure its latency, throughput and peak memory.

    Example: [bold]formery measure convnext_tiny --layers[/bold], [bold]formery measure olmo_hybrid_7b --count[/bold]
    """
    lengths = _lengths(context)
    if not is_saved(model):
        read_spec(model)
    import torch

    from .. import measure

    with torch.device("meta" if count_only and not is_saved(model) else "cpu"):
        opened = open_model(model, set_)
    opened.eval()
    shape = _shape(opened, batch, size)
    reports: dict[str, Any] = {
        "parameters": measure.count_parameters(opened),
        "macs": measure.count_macs(opened, shape),
    }
    if not count_only:
        reports["latency"] = measure.latency(opened, shape, threads=threads)
        reports["memory"] = measure.peak_memory(opened, shape)
        if layers:
            reports["layers"] = measure.per_layer(opened, shape, threads=threads)
    if lengths:
        reports["context"] = measure.context_sweep(opened, lengths, batch=batch, threads=threads)
    if as_json:
        emit(
            {"model": opened.name, "input": list(shape)} | {name: report.as_dict() for name, report in reports.items()}
        )
        return
    rows = [("input", "x".join(map(str, shape))), ("parameters", f"{reports['parameters'].total:,}"),
            ("MACs an item", f"{reports['macs'].per_item:,.0f}")]  # fmt: skip
    if not count_only:
        timing, memory = reports["latency"], reports["memory"]
        rows += [
            ("latency", f"{1e3 * timing.median:.2f} ms (quartiles {1e3 * timing.lower:.2f} to {1e3 * timing.upper:.2f}, {timing.runs} runs)"),
            ("throughput", f"{timing.per_second(batch):.1f} items a second"),
            ("memory", f"{memory.weights / 1e6:.1f} MB weights, {memory.activations / 1e6:.1f} MB activations at the peak"),
        ]  # fmt: skip
    table(opened.name, ["what", "figure"], rows)
    for name in ("layers", "context"):
        if name in reports:
            console().print(reports[name])


def _lengths(text: str) -> list[int]:
    from ..errors import BadSpec

    try:
        lengths = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise BadSpec(f"context is lengths with commas between, as 1024,4096, got {text!r}") from None
    if any(length < 1 for length in lengths):
        raise BadSpec(f"context lengths are at least 1, got {text!r}")
    return lengths


def _shape(model: Any, batch: int, size: int | None) -> tuple[int, ...]:
    if model.modality == "image":
        channels, height, width = model.default_cfg["input_size"]
        return (batch, channels, size or height, size or width)
    return (batch, size or model.resolved["stem"].get("length") or 128)
