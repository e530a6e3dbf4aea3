"""`formery fit`: the main job."""

from __future__ import annotations

from pathlib import Path

import typer

from .output import JSON, console, emit


def command(
    data: str = typer.Argument(help="digits, pydoc, a folder of images by class, a text file or a folder of texts."),
    task: str = typer.Option("", help="classify or language; follows from the data unless given."),
    max_latency: float | None = typer.Option(
        None, metavar="MS", help="Milliseconds one item may take (batch 1, eager, fp32)."
    ),
    max_params: int | None = typer.Option(None, metavar="N", help="Parameters the model may have."),
    max_drop: float = typer.Option(
        0.5, metavar="POINTS", help="Points of the validation score that shrinking may cost."
    ),
    minutes: float | None = typer.Option(
        None, metavar="M", help="Time to spend, roughly; follows from the data unless given."
    ),
    effort: float = typer.Option(1.0, help="Multiplies the training steps where no minutes are given."),
    image_size: int | None = typer.Option(
        None, help="Side of the images in pixels; follows from the data unless given."
    ),
    seed: int = typer.Option(0, help="Of splits, weights and order."),
    out: str = typer.Option("", "--out", "-o", metavar="DIR", help="Where everything goes; runs/DATA unless given."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted fit in --out."),
    as_json: bool = JSON,
) -> None:
    """Find, train, shrink and export the hybrid that serves your data best, with the evidence in report.html.

    Example: [bold]formery fit digits --out runs/digits[/bold], [bold]formery fit photos/ --max-latency 5 --minutes 10[/bold]
    """
    from ..errors import BadFile, UnknownName
    from ..registry import index, nearest

    embedded = index("data")
    if data not in embedded and not Path(data).exists():
        if "/" in data or "\\" in data or "." in data:
            raise BadFile(f"{data} does not exist")
        raise UnknownName(f"no data are called {data!r} and no file or folder is; {nearest(data, embedded)}")
    if task and task not in index("task"):
        raise UnknownName(f"no task is called {task!r}; {nearest(task, index('task'))}")
    from ..search.settings import Settings

    settings = Settings(task or None, max_latency, max_params, max_drop, minutes, effort, seed, image_size)
    place = Path(out or f"runs/{Path(data).stem or 'fit'}")
    _check_place(place)
    from ..search.fit import fit

    terminal = console(stderr=True)
    report = fit(data, place, settings, resume=resume, say=lambda line: terminal.print(line, markup=False), quiet=False)
    if as_json:
        emit(report)
        return
    name = report["metric"]["name"]
    print(
        f"validation {name}: {report['validation'][name]:.4f}   test {name}, shipped ONNX: {report['test'][f'{name}_onnx']:.4f}"
    )
    print(f"model: {place / 'model'}   onnx: {place / 'model.onnx'}   report: {place / 'report.html'}")


def _check_place(place: Path) -> None:
    """Unwritable before anything heavy is done."""
    import os

    from ..errors import Unwritable

    at = place
    while not at.exists():
        at = at.parent
    if not at.is_dir() or not os.access(at, os.W_OK):
        raise Unwritable(
            f"cannot write {place}: {at} is {'not writable' if at.is_dir() else 'a file'}; choose another --out"
        )
