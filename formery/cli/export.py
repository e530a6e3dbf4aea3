"""`formery export`: a saved model as ONNX, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .models import changes_of, check_overrides, find, open_model
from .options import DATA_HELP, MODEL_HELP, SET, above_zero, finite
from .output import JSON, emit, say
from .places import check_data, file_to_write


def command(
    model: str = typer.Argument(help=MODEL_HELP),
    out: str = typer.Option("model.onnx", "--out", "-o", metavar="FILE", help="Where to write the ONNX file."),
    set_: list[str] = SET,
    any_size: bool = typer.Option(
        False, "--any-size", help="Images: leave height and width free as well as the batch."
    ),
    tolerance: float = typer.Option(
        1e-4, callback=above_zero, help="Greatest difference allowed, as a share of the outputs' scale."
    ),
    int8: str = typer.Option("", metavar="FILE", help="Also write an int8 form here, with ranges from --data."),
    data: str = typer.Option("", help=f"What --int8 takes ranges from and is judged on: {DATA_HELP}"),
    max_drop: float = typer.Option(
        0.5,
        min=0.0,
        callback=finite,
        metavar="POINTS",
        help="Points of the validation score that int8 may cost; if it costs more, it is not written.",
    ),
    as_json: bool = JSON,
) -> None:
    """Export a model to ONNX and check it by running it at shapes that were never traced.

    Example: [bold]formery export runs/digits --out digits.onnx[/bold], [bold]formery export runs/digits --out
    digits.onnx --int8 small.onnx --data digits[/bold]
    """
    from ..errors import BadSpec

    if bool(int8) != bool(data):
        raise BadSpec("int8 needs calibration data, and data serve int8 alone: give --int8 and --data together")
    place = file_to_write(out, ".onnx")
    if int8:
        if file_to_write(int8, ".onnx", option="--int8").absolute() == place.absolute():
            raise BadSpec(f"--out and --int8 both name {out}; give two files")
        check_data(data)
    changes = changes_of(set_)
    subject = find(model)
    check_overrides(subject, changes)

    from ..runtime.export import export_onnx

    opened = open_model(subject, changes)
    report = export_onnx(opened, place, dynamic="all" if any_size else "batch", tolerance=tolerance).as_dict()
    if int8:
        from ..runtime.ship import ship_int8

        report["int8"] = ship_int8(opened, place, Path(int8), data, max_drop)
    if as_json:
        emit(report)
    else:
        _tell(report, int8)


def _tell(report: dict[str, Any], int8: str) -> None:
    say(f"{report['path']}: {report['bytes']:,} bytes, free axes: {', '.join(report['dynamic'])}")
    shapes = " and ".join("x".join(map(str, shape)) for shape in report["checked_shapes"])
    difference = f"largest difference {report['max_difference']:.2g}, outputs reach {report['scale']:.2g}"
    say(f"{difference} (run at {shapes}, traced at {'x'.join(map(str, report['traced_shape']))})")
    if not int8:
        return
    found = report["int8"]
    state = f"written to {int8}" if found["shipped"] else "NOT written: it costs more than --max-drop allows"
    say(f"int8: {found['metric']} {found['score']:.4f} against {found['before']:.4f} ({state})")
