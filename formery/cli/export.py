"""`formery export`: a saved model as ONNX, checked."""

from __future__ import annotations

import typer

from .models import MODEL_HELP, SET, is_saved, open_model, read_spec
from .output import JSON, emit


def command(
    model: str = typer.Argument(help=MODEL_HELP),
    out: str = typer.Option("model.onnx", "--out", "-o", help="Where to write the ONNX file."),
    set_: list[str] = SET,
    any_size: bool = typer.Option(
        False, "--any-size", help="Images: leave height and width free as well as the batch."
    ),
    tolerance: float = typer.Option(
        1e-4, min=0.0, help="Greatest difference allowed, as a share of the outputs' scale."
    ),
    int8: str = typer.Option("", help="Also write an int8 form here, with ranges from --data."),
    data: str = typer.Option(
        "", help="For --int8: data as 'formery fit' takes them; its score is measured on their validation part."
    ),
    max_drop: float = typer.Option(
        0.5,
        min=0.0,
        help="For --int8: points of the validation score it may cost; if it costs more, it is not written.",
    ),
    as_json: bool = JSON,
) -> None:
    """Export a model to ONNX and check it by running it at a shape that was never traced.

    Example: [bold]formery export runs/digits --out digits.onnx[/bold]
    """
    from ..errors import BadSpec

    if bool(int8) != bool(data):
        raise BadSpec("int8 needs calibration data, and data serve int8 alone: give --int8 and --data together")
    if not is_saved(model):
        read_spec(model)
    from ..runtime.export import export_onnx

    opened = open_model(model, set_)
    report = export_onnx(opened, out, dynamic="all" if any_size else "batch", tolerance=tolerance).as_dict()
    if int8:
        from ..runtime.ship import ship_int8

        report["int8"] = ship_int8(opened, out, int8, data, max_drop)
    if as_json:
        emit(report)
        return
    print(f"{report['path']}: {report['bytes']:,} bytes, free axes: {', '.join(report['dynamic'])}")
    print(
        f"largest difference at {report['checked_shape']} (traced at {report['traced_shape']}): {report['max_difference']:.2g}, outputs reach {report['scale']:.2g}"
    )
    if int8:
        found = report["int8"]
        state = f"written to {int8}" if found["shipped"] else "NOT written: it costs more than --max-drop allows"
        print(f"int8: {found['metric']} {found['score']:.4f} against {found['before']:.4f} ({state})")
