"""`formery characterize`: how a language model's costs grow with its context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .models import changes_of, check_overrides, find, open_model
from .options import SET, THREADS, above_zero
from .output import JSON, console, emit, say

if TYPE_CHECKING:
    from ..measure.characterize import Curve


def command(
    models: list[str] = typer.Argument(help="Names, folders of saved models or spec files of models that stream."),
    context: str = typer.Option("512:65536", metavar="FIRST:LAST", help="Lengths, each twice the one before."),
    set_: list[str] = SET,
    seconds: float = typer.Option(2.0, callback=above_zero, help="For a prefill's repetitions at each length."),
    bf16: bool = typer.Option(False, "--bf16", help="Weights and activations in bfloat16."),
    device: str = typer.Option("cpu", help="cpu, or an accelerator such as cuda."),
    threads: int | None = THREADS,
    out: Path | None = typer.Option(None, help="Folder for characterize.json and characterize.png."),
    as_json: bool = JSON,
) -> None:
    """Measure prefill, decode, memory, state and the share of each class of operator as the context grows.

    Growth exponents are fitted over the longer half of three lengths or more. Stops by itself before memory runs out;
    when interrupted it shows, and keeps in --out, the lengths measured so far.

    Example: [bold]formery characterize olmo_hybrid_tiny decoder_tiny --context 256:8192 --out runs/growth[/bold]
    """
    first, last = _bounds(context)
    if len(set(models)) < len(models):
        from ..errors import BadSpec

        raise BadSpec("give each model once")
    subjects = [find(name) for name in models]
    changes = changes_of(set_)
    for subject in subjects:
        check_overrides(subject, changes)
    if out is not None:
        _check_out(out)

    import torch

    from ..measure.characterize import characterize, lengths_between

    lengths = lengths_between(first, last)
    place = _device(device)
    measured: dict[str, Curve] = {}

    def keep(curve: Curve) -> None:
        measured[curve.name] = curve
        if out is not None:
            from ..files import write_json

            write_json(out / "characterize.json", _facts(list(measured.values())))

    try:
        for subject in subjects:
            model = open_model(subject, changes).to(place)
            model = model.to(torch.bfloat16) if bf16 else model
            keep(
                characterize(
                    model, lengths, name=subject.text, seconds=seconds, threads=threads,
                    say=lambda text: say(text, stderr=True), keep=keep,
                )
            )  # fmt: skip
    finally:  # what took minutes to measure is shown, whatever ended it
        if measured:
            _show(list(measured.values()), out, as_json)


def _check_out(out: Path) -> None:
    """Unwritable where the results could not be written after all measuring."""
    from .places import file_to_write, folder_to_write

    folder_to_write(str(out))
    for suffix in (".json", ".png"):
        file_to_write(str(out / f"characterize{suffix}"), suffix)


def _facts(curves: list[Curve]) -> dict[str, Any]:
    return {"models": [curve.as_dict() for curve in curves], "crossings": _crossings(curves)}


def _show(curves: list[Curve], out: Path | None, as_json: bool) -> None:
    """Print what was measured, then draw it: the picture may fail, the figures are out."""
    from ..measure.characterize import counted_tokens, plot

    facts = _facts(curves)
    if as_json:
        emit(facts)
    else:
        for curve in curves:
            console().print(curve)
            if curve.stopped:
                say(f"stopped: {curve.stopped}")
        for row in facts["crossings"]:
            tokens = row["tokens"]
            where = "no crossing" if tokens is None else f"they cross near {counted_tokens(tokens)}"
            say(f"{row['first']} and {row['second']}, {row['what']}: {where}")
    if out is not None:
        plot(curves, out / "characterize.png")


def _bounds(text: str) -> tuple[int, int]:
    from ..errors import BadSpec

    first, _, last = text.partition(":")
    try:
        return int(first), int(last or first)
    except ValueError:
        raise BadSpec(f"--context is a first and a last length, as 512:65536, got {text!r}") from None


def _device(name: str) -> Any:
    import torch

    from ..errors import BadSpec

    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError):
        raise BadSpec(f"--device {name!r} is not there; take cpu, or an accelerator that torch finds") from None
    return place


def _crossings(curves: list[Curve]) -> list[dict[str, Any]]:
    from itertools import combinations

    from ..measure.characterize import crossing

    return [
        {"first": a.name, "second": b.name, "what": what, "tokens": crossing(a, b, what)}
        for a, b in combinations(curves, 2)
        for what in ("prefill", "decode")
    ]
