"""`formery deploy`: every exact rewrite, then the fastest form that agrees on images."""

from __future__ import annotations

from typing import Any

import typer

from .models import changes_of, check_overrides, find, open_model
from .options import DATA_HELP, MODEL_HELP, SET, THREADS, above_zero, finite
from .output import JSON, emit, say, table
from .places import check_data, folder_to_write


def command(
    model: str = typer.Argument(help=MODEL_HELP),
    out: str = typer.Option("deployed", "--out", "-o", metavar="DIR", help="A new folder for model, files and report."),
    data: str = typer.Option(
        "",
        help=f"Images to compare outputs on, with or without classes: {DATA_HELP} Unless given, those that the model "
        "was trained on; where they are not here, photographs, by which int8 and bfloat16 are never chosen.",
    ),
    forms: str = typer.Option(
        "eager,packed,bfloat16,bfloat16-packed,onnx",
        help="What to try, by commas: eager, packed, compiled, compiled-free, bfloat16, bfloat16-packed, "
        "bfloat16-compiled, onnx, int8, or all.",
    ),
    rewrites: bool = typer.Option(True, "--rewrites/--no-rewrites", help="Take every exact rewrite first."),
    batch: int = typer.Option(1, min=1, help="Images at a time, for which the fastest form is chosen."),
    seconds: float = typer.Option(10.0, callback=above_zero, help="Time to spend on timing."),
    at_least: float = typer.Option(
        99.0,
        min=0.0,
        max=100.0,
        callback=finite,
        metavar="PERCENT",
        help="Images on which the likeliest class has to stay, for a form to be chosen.",
    ),
    threads: int | None = THREADS,
    set_: list[str] = SET,
    as_json: bool = JSON,
) -> None:
    """Make a trained image model as fast as it can be here, and check every step on images.

    Exact rewrites first (batch norms, layer scales, parallel branches, position tables), each reported; then forms of
    running it, timed in turn; the fastest that agrees is chosen and opened by 'formery predict DIR'.

    Example: [bold]formery deploy runs/flowers --data flowers/ --forms all --out served[/bold]
    """
    from ..errors import Unwritable

    place = folder_to_write(out)
    if place.exists() and any(place.iterdir()):
        raise Unwritable(f"{out} has files in it; give a new folder to --out")
    if data:
        check_data(data)
    changes = changes_of(set_)
    subject = find(model)
    check_overrides(subject, changes)

    from ..runtime.deploy import deploy, forms_of

    chosen = forms_of(name.strip() for name in forms.split(",") if name.strip())
    report = deploy(
        open_model(subject, changes), place, images=data or None, forms=chosen, rewrites=rewrites, batch=batch,
        threads=threads, seconds=seconds, at_least=at_least / 100, tell=lambda text: say(text, stderr=True),
    ).as_dict()  # fmt: skip
    if as_json:
        emit(report)
    else:
        _tell(report)


def _tell(report: dict[str, Any]) -> None:
    for entry in report["rewrites"]:
        steps = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in entry["steps"].items())
        name = entry.get("label", entry["rewrite"])
        say(f"{name}: {steps}" if entry["taken"] else f"{name}: left out: {entry['why']}")
        for refusal in entry["refused"] if entry["taken"] else []:
            more = f" and {refusal['times'] - 1} more" if refusal["times"] > 1 else ""
            say(f"  not the {refusal['what']} at {refusal['where']}{more}: {refusal['why']}")
    rows = [_row(row) for row in report["rows"]]
    title = f"{report['model']}, batch {report['batch']}, {report['threads']} thread(s)"
    table(
        title,
        ["form", "milliseconds", "ratio", "1st quartile", "same class", "difference"],
        rows,
        right=(1, 2, 3, 4, 5),
    )
    say(f"judged on {report['judged']} {report['images']}")
    for row in report["rows"]:
        if "why" in row:
            say(f"{row['form']}: not made: {row['why']}")
        elif "unfit" in row:
            say(f"{row['form']}: not to be chosen: {row['unfit']}")
    say(f"chosen: {report['chosen']}; written to {report['out']}")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    if "why" in row:
        return row["form"], "", "", "", "", ""
    speed = row["form"], f"{row['milliseconds']:.2f}", f"{row['ratio']:.2f}x", f"{row['ratio_lower']:.2f}x"
    return *speed, *((f"{row['top1']:.1%}", f"{row['difference']:.1e}") if "top1" in row else ("", ""))
