"""`formery shrink`: rewrites of a saved model, exact or measured."""

from __future__ import annotations

import math
from typing import Any

import typer

from .models import find, open_model
from .options import DATA_HELP, finite, one_of
from .output import JSON, emit, say, table
from .places import check_data, folder_to_write

UNITS = ("mixer", "channel", "joint", "block")
MAX_DROP = 2.0
"""Points of the validation score that a model may lose and be written, unless --max-drop says otherwise."""


def command(
    model: str = typer.Argument(help="The folder of a saved model or of a run."),
    out: str = typer.Option(
        "", "--out", "-o", metavar="DIR", help="Where the rewritten model goes; nothing is written without."
    ),
    drop: int = typer.Option(0, min=0, metavar="N", help="Remove the N least useful units; needs --data."),
    unit: str = typer.Option("joint", help="What --drop removes: mixer, channel, joint (either), block."),
    fold: bool = typer.Option(True, "--fold/--no-fold", help="Fold what can be folded exactly, at the end."),
    data: str = typer.Option("", help=f"What --drop looks at, and the score is measured on: {DATA_HELP}"),
    max_drop: float | None = typer.Option(
        None,
        min=0.0,
        callback=finite,
        metavar="POINTS",
        help=f"Write nothing if the validation score falls by more; {MAX_DROP:g} unless given.",
    ),
    as_json: bool = JSON,
) -> None:
    """Make a saved model smaller and faster by rewrites whose effect is exact or measured.

    Without --out it only says what that costs. 'formery train' trains what is left further; 'formery fit' does both.

    Example: [bold]formery shrink runs/digits/model --drop 1 --data digits[/bold], [bold]formery shrink
    runs/digits/model --out folded[/bold]
    """
    from ..errors import BadFile, BadSpec

    one_of("--unit", unit, UNITS)
    if not drop and not fold:
        raise BadSpec("there is nothing to do: give --drop N, or leave --no-fold out")
    if (drop or max_drop is not None) and not data:
        raise BadSpec("--drop looks at data, and --max-drop is measured on them: give --data")
    subject = find(model)
    if subject.kind == "spec":
        raise BadFile(f"{model} has no weights to keep; give the folder of a saved model")
    if data:
        check_data(data)
    place = folder_to_write(out) if out else None

    from ..runtime.shrinking import shrink

    opened = open_model(subject)
    result = shrink(opened, source=data or None, drop=drop, unit=unit, fold=fold)
    bound, lost = MAX_DROP if max_drop is None else max_drop, result.get("points_lost", 0.0)
    if lost > bound and (place is not None or max_drop is not None):
        raise BadSpec(
            f"the score falls by {lost:.2f} points, more than {bound:g}, so nothing is written; drop fewer, or allow "
            f"it by --max-drop {math.ceil(lost)} and train on what is written"
        )
    if place is not None:
        opened.save_pretrained(place)
        result["out"] = out
    if as_json:
        emit(result)
    else:
        _tell(opened.name, result)


def _tell(name: str, result: dict[str, Any]) -> None:
    rows = [
        (
            report["rewrite"], report["promise"], report["steps"], f"{report['parameters']['before']:,}",
            f"{report['parameters']['after']:,}", _cost(report),
        )
        for report in result["rewrites"]
    ]  # fmt: skip
    columns = ["rewrite", "promise", "steps", "parameters before", "after", "on the data"]
    table(name, columns, rows, right=(2, 3, 4))
    if "metric" in result:
        say(f"validation {result['metric']}: {result['before']:.4f} before, {result['after']:.4f} after")
    say(f"written to {result['out']}" if "out" in result else "nothing is written; give --out to keep it")


def _cost(report: dict[str, Any]) -> str:
    if "difference" not in report:
        return ""
    change = f"largest change {report['difference']:.2g} of the outputs' scale"
    return f"{change}, {report['agreement']:.2%} of predictions equal"
