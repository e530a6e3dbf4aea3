"""`formery predict`: a saved or exported model over a file or folder."""

from __future__ import annotations

import sys

import typer

from .models import find
from .output import counted, emit, say
from .places import check_source, file_to_write


def command(
    model: str = typer.Argument(
        help="The folder of a saved model or of a run, or an .onnx file that formery exported."
    ),
    source: str = typer.Argument(help="An image or a folder of them; for language models a text file or a folder."),
    out: str = typer.Option(
        "", "--out", "-o", metavar="FILE", help="A .csv or .jsonl file; otherwise CSV goes to the terminal."
    ),
    batch_size: int = typer.Option(64, min=1, help="Images, or windows of a text, at a time."),
    top: int = typer.Option(1, min=1, help="How many of the likeliest classes to give."),
    skip_broken: bool = typer.Option(
        False, "--skip-broken", help="Give broken files a row with the reason instead of stopping."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON lines instead of CSV."),
) -> None:
    """Predict the class of every image below a folder (or the bits per byte of every text) into CSV or JSON lines.

    Example: [bold]formery predict runs/digits photos/ --out predictions.csv[/bold]
    """
    from ..errors import BadFile

    check_source(source)
    place = file_to_write(out, ".csv", ".jsonl", ".ndjson") if out else None
    subject = find(model, onnx=True)
    if subject.kind not in ("saved", "onnx"):
        raise BadFile(f"{model} has learned nothing yet; give the folder of a saved model, or an .onnx file")

    from ..runtime.predict import lines, open_predictor, predict, write

    rows = predict(open_predictor(subject.path), source, batch_size=batch_size, top=top, skip_broken=skip_broken)
    if place is None:
        for line in lines(rows, "jsonl" if as_json else "csv", top=top):
            sys.stdout.write(line)
        return
    count = write(rows, place, top=top)
    if as_json:
        emit({"out": out, "rows": count})
    else:
        say(f"{counted(count, 'row')} in {out}")
