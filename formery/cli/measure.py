"""`formery measure`: what a model costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from .models import changes_of, check_overrides, find, hollow_model, input_shape, open_model
from .options import BATCH, MODEL_HELP, SET, SIZE, THREADS
from .output import JSON, console, emit, table

if TYPE_CHECKING:
    from ..model import Model


def command(
    model: str = typer.Argument(help=MODEL_HELP),
    set_: list[str] = SET,
    batch: int = BATCH,
    size: int | None = SIZE,
    layers: bool = typer.Option(False, "--layers", help="Also a table of parameters, MACs and time a layer."),
    context: str = typer.Option(
        "", metavar="N,N,...", help="Lengths, as '1024,4096': prefill, decode and state bytes of a streaming model."
    ),
    count_only: bool = typer.Option(
        False, "--count", help="Count parameters and MACs alone; needs no memory for weights."
    ),
    threads: int | None = THREADS,
    as_json: bool = JSON,
) -> None:
    """Count parameters and MACs of a model, and measure its latency, throughput and peak memory.

    Example: [bold]formery measure convnext_tiny --layers[/bold], [bold]formery measure olmo_hybrid_7b --count[/bold]
    """
    from ..errors import BadSpec

    lengths = _lengths(context)
    if count_only and (layers or lengths):
        raise BadSpec("--count measures nothing; leave it out, or leave --layers and --context out")
    changes = changes_of(set_)
    subject = find(model)
    check_overrides(subject, changes)
    opened = hollow_model(subject, changes) if count_only else open_model(subject, changes)
    shape = input_shape(opened, batch, size)
    reports = _reports(opened, shape, lengths, layers=layers, count_only=count_only, threads=threads)
    if as_json:
        facts = {name: report.as_dict() for name, report in reports.items()}
        emit({"model": opened.name, "input": list(shape)} | facts)
        return
    table(opened.name, ["what", "figure"], _rows(reports, shape, batch))
    for name in ("layers", "context"):
        if name in reports:
            console().print(reports[name])


def _reports(
    model: Model, shape: tuple[int, ...], lengths: list[int], *, layers: bool, count_only: bool, threads: int | None
) -> dict[str, Any]:
    """What was asked for, by name."""
    from .. import measure
    from .memory import check_room, check_streams

    found: dict[str, Any] = {
        "parameters": measure.count_parameters(model),
        "macs": measure.count_macs(model, shape),
    }
    if count_only:
        return found
    check_room(shape)
    check_streams(model, lengths, shape[0])
    found["latency"] = measure.latency(model, shape, threads=threads)
    found["memory"] = measure.peak_memory(model, shape)
    if layers:
        found["layers"] = measure.per_layer(model, shape, threads=threads)
    if lengths:
        found["context"] = measure.context_sweep(model, lengths, batch=shape[0], threads=threads)
    return found


def _rows(reports: dict[str, Any], shape: tuple[int, ...], batch: int) -> list[tuple[str, str]]:
    """The figures in words."""
    rows = [
        ("input", "x".join(map(str, shape))),
        ("parameters", f"{reports['parameters'].total:,}"),
        ("MACs an item", f"{reports['macs'].per_item:,.0f}"),
    ]
    if "latency" in reports:
        timing, memory = reports["latency"], reports["memory"]
        median, lower, upper = (1e3 * seconds for seconds in (timing.median, timing.lower, timing.upper))
        weights, activations = memory.weights / 1e6, memory.activations / 1e6
        rows += [
            ("latency", f"{median:.2f} ms (quartiles {lower:.2f} to {upper:.2f}, {timing.runs} runs)"),
            ("throughput", f"{timing.per_second(batch):.1f} items a second"),
            ("memory", f"{weights:.2f} MB weights, {activations:.2f} MB activations at the peak"),
        ]
    return rows


def _lengths(text: str) -> list[int]:
    from ..errors import BadSpec

    try:
        lengths = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise BadSpec(f"--context is lengths with commas between, as 1024,4096, got {text!r}") from None
    if any(length < 1 for length in lengths):
        raise BadSpec(f"lengths of --context are at least 1, got {text!r}")
    return lengths
