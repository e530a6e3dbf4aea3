"""`formery fit`: the main job."""

from __future__ import annotations

import typer

from .options import DATA_HELP, LARGEST_SEED, above_zero, finite
from .output import JSON, emit, say
from .places import check_data, folder_to_write, run_folder


def command(
    data: str = typer.Argument(help=DATA_HELP),
    task: str = typer.Option("", help="classify or language; follows from the data unless given."),
    max_latency: float | None = typer.Option(
        None, metavar="MS", callback=above_zero, help="Milliseconds one item may take (batch 1, eager, fp32)."
    ),
    max_params: int | None = typer.Option(None, min=1, metavar="N", help="Parameters the model may have."),
    max_drop: float = typer.Option(
        0.5, min=0.0, metavar="POINTS", callback=finite, help="Points of the validation score that shrinking may cost."
    ),
    minutes: float | None = typer.Option(
        None, metavar="M", callback=above_zero, help="Time to spend, roughly; follows from the data unless given."
    ),
    effort: float = typer.Option(
        1.0, callback=above_zero, help="Multiplies the training steps where no minutes are given."
    ),
    image_size: int | None = typer.Option(
        None, min=1, help="Side of the images in pixels; follows from the data unless given."
    ),
    seed: int = typer.Option(0, min=0, max=LARGEST_SEED, help="Of splits, weights and order."),
    out: str = typer.Option("", "--out", "-o", metavar="DIR", help="Where everything goes; runs/DATA unless given."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted fit in --out."),
    as_json: bool = JSON,
) -> None:
    """Find, train, shrink and export the hybrid that serves your data best, with the evidence in report.html.

    Example: [bold]formery fit digits --out runs/digits[/bold], [bold]formery fit photos/ --max-latency 5 --minutes
    10[/bold]
    """
    from ..errors import UnknownName
    from ..registry import index, nearest

    check_data(data)
    if task and task not in index("task"):
        raise UnknownName(f"no task is called {task!r}; {nearest(task, index('task'))}")
    from ..search.settings import Settings

    settings = Settings(task or None, max_latency, max_params, max_drop, minutes, effort, seed, image_size)
    place = folder_to_write(out or run_folder(data, "fit"))
    from ..search.fit import fit

    report = fit(data, place, settings, resume=resume, say=lambda text: say(text, stderr=True), quiet=False)
    if as_json:
        emit(report)
        return
    name, test = report["metric"]["name"], report["test"]
    say(
        f"validation {name}: {report['validation'][name]:.4f}, test {name} of the ONNX file: {test[f'{name}_onnx']:.4f}"
    )
    say(f"model: {place / 'model'}, ONNX: {place / 'model.onnx'}, report: {place / 'report.html'}")
