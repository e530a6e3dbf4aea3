"""`formery shrink`: rewrites of a saved model, exact or measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .models import is_saved
from .output import JSON, emit, table


def command(
    model: str = typer.Argument(help="The folder of a saved model."),
    out: str = typer.Option(
        "", "--out", "-o", metavar="DIR", help="Where the rewritten model goes; nothing is written without."
    ),
    drop: int = typer.Option(0, min=0, metavar="N", help="Remove the N least useful units; needs --data."),
    unit: str = typer.Option("joint", help="What drop removes: mixer, channel, joint (either), block."),
    fold: bool = typer.Option(True, "--fold/--no-fold", help="Fold what can be folded exactly, at the end."),
    data: str = typer.Option(
        "", help="Data as 'formery fit' takes them: what drop looks at, and the score is measured on."
    ),
    max_drop: float | None = typer.Option(
        None, min=0.0, metavar="POINTS", help="Write nothing if the validation score falls by more."
    ),
    as_json: bool = JSON,
) -> None:
    """Make a saved model smaller and faster by rewrites whose effect is exact or measured.

    Example: [bold]formery shrink runs/digits/model --drop 2 --data digits --out smaller[/bold]
    """
    from ..errors import BadFile, BadSpec

    if not is_saved(model):
        raise BadFile(f"{model} is not the folder of a saved model: config.json and model.safetensors are needed")
    if unit not in ("mixer", "channel", "joint", "block"):
        raise BadSpec(f"unit is mixer, channel, joint or block, got {unit!r}")
    if (drop or max_drop is not None) and not data:
        raise BadSpec("drop looks at data, and max-drop is measured on them: give --data")
    from ..model import Model
    from ..runtime.shrinking import shrink

    opened = Model.from_pretrained(model).eval()
    result = shrink(opened, source=data or None, drop=drop, unit=unit, fold=fold)
    if max_drop is not None and result["points_lost"] > max_drop:
        raise BadSpec(
            f"the score falls by {result['points_lost']:.2f} points, more than {max_drop:g}: drop fewer, or train on"
        )
    if out:
        opened.save_pretrained(Path(out))
        result["out"] = out
    if as_json:
        emit(result)
        return
    rows = [
        (
            r["rewrite"],
            r["promise"],
            r["steps"],
            f"{r['parameters']['before']:,}",
            f"{r['parameters']['after']:,}",
            _cost(r),
        )
        for r in result["rewrites"]
    ]
    table(
        opened.name, ["rewrite", "promise", "steps", "parameters before", "after", "on the data"], rows, right=(2, 3, 4)
    )
    if "metric" in result:
        print(f"validation {result['metric']}: {result['before']:.4f} before, {result['after']:.4f} after")
    print(f"written to {out}" if out else "nothing written; give --out to keep it")


def _cost(report: dict[str, Any]) -> str:
    if "difference" not in report:
        return ""
    return f"largest change {report['difference']:.2g} of the outputs' scale, {report['agreement']:.2%} of predictions equal"
