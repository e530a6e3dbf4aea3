"""`formery predict`: a saved or exported model over a file or folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from .models import find
from .output import console, counted, emit, say
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
    sheet: str = typer.Option(
        "", metavar="FILE", help="A .png of some images with their classes; mistakes by the sub-folders' names first."
    ),
    skip_broken: bool = typer.Option(
        True,
        "--skip-broken/--stop-at-broken",
        help="Give files of a folder that cannot be read a row with the reason, or stop at the first one.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON lines instead of CSV."),
) -> None:
    """Predict the class of every image below a folder (or the bits per byte of every text) into CSV or JSON lines.

    Example: [bold]formery predict runs/digits photos/ --out predictions.csv[/bold]
    """
    from ..errors import BadFile

    check_source(source)
    place = file_to_write(out, ".csv", ".jsonl", ".ndjson") if out else None
    picture = file_to_write(sheet, ".png", option="--sheet") if sheet else None
    subject = find(model, onnx=True)
    if subject.kind not in ("saved", "onnx"):
        raise BadFile(f"{model} has learned nothing yet; give the folder of a saved model, or an .onnx file")

    from ..runtime.predict import lines, open_predictor, predict, write
    from ..runtime.seen import Seen

    opened = open_predictor(subject.path)
    skip = skip_broken and Path(source).is_dir()
    seen = Seen(opened.extra, wants_pictures=picture is not None)
    rows = seen.watch(predict(opened, source, batch_size=batch_size, top=top, skip_broken=skip))
    if place is None:
        for line in lines(rows, "jsonl" if as_json else "csv", top=top):
            sys.stdout.write(line)
    else:
        count = write(_shown(rows, source), place, top=top)
    if picture is not None:
        seen.draw(picture)
    if seen.broken:
        say(f"{seen.broken} of {counted(seen.rows, 'file')} could not be read: {seen.reason}", stderr=True)
    if place is None:
        return
    facts = {"out": out, "rows": count} | ({"broken": seen.broken} if seen.broken else {}) | seen.judged
    if as_json:
        emit(facts)
        return
    say(f"{counted(count, 'row')} in {out}")
    if seen.judged:
        share, num = 100 * seen.judged["accuracy"], seen.judged["labelled"]
        say(f"by the names of their folders {share:.2f} % of {num} are right")


def _shown(rows: Iterable[dict[str, Any]], source: str) -> Iterator[dict[str, Any]]:
    """The rows, counted on a terminal."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield from rows
        return
    from rich import progress

    from ..data.folders import walk

    total = sum(1 for _ in walk(Path(source))) if Path(source).is_dir() else 1
    columns = [progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn()]
    with progress.Progress(*columns, console=out, transient=True) as bar:
        yield from bar.track(rows, total=total)
