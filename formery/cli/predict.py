"""`formery predict`: a saved or exported model over a file or folder."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from .output import emit


def command(
    model: str = typer.Argument(help="The folder of a saved model, or an .onnx file that formery exported."),
    source: str = typer.Argument(help="An image or a folder of them; for language models a text file or a folder."),
    out: str = typer.Option("", "--out", "-o", help="A .csv or .jsonl file; otherwise CSV goes to the terminal."),
    batch_size: int = typer.Option(64, min=1, help="Images at a time."),
    top: int = typer.Option(1, min=1, help="How many of the likeliest classes to give."),
    skip_broken: bool = typer.Option(False, help="Give broken images a row with the reason instead of stopping."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON lines instead of CSV."),
) -> None:
    """Predict the class of every image below a folder (or the bits per byte of every text) into CSV or JSONL.

    Example: [bold]formery predict runs/digits photos/ --out predictions.csv[/bold]
    """
    from ..errors import BadFile, BadSpec

    if not Path(source).exists():
        raise BadFile(f"{source} does not exist")
    if not Path(model).exists():
        raise BadFile(f"{model} does not exist; give the folder of a saved model, or an .onnx file")
    if out and Path(out).suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
        raise BadSpec(f"{out}: predictions are written as .csv or .jsonl")
    from ..runtime.predict import lines, open_predictor, predict, write

    rows = predict(open_predictor(model), source, batch_size=batch_size, top=top, skip_broken=skip_broken)
    if not out:
        for line in lines(rows, "jsonl" if as_json else "csv"):
            sys.stdout.write(line)
        return
    count = write(rows, out)
    emit({"out": out, "rows": count}) if as_json else print(f"{count} rows in {out}")
