"""`formery train`: one model on one data set, or a recipe."""

from __future__ import annotations

from pathlib import Path

import typer

from .models import MODEL_HELP, SET, is_saved, read_spec
from .output import JSON, emit


def command(
    model: str = typer.Argument(
        help=f"A recipe (.yaml with data and train), or a model: {MODEL_HELP[0].lower()}{MODEL_HELP[1:]}"
    ),
    data: str = typer.Argument("", help="Data as 'formery fit' takes them; a recipe names its own."),
    out: str = typer.Option("", "--out", "-o", metavar="DIR", help="Where everything goes; runs/NAME unless given."),
    set_: list[str] = SET,
    steps: int | None = typer.Option(None, min=1, help="Training steps; needed unless a recipe says so."),
    batch_size: int | None = typer.Option(None, min=1, help="Items a step."),
    learning_rate: float | None = typer.Option(None, help="The highest rate."),
    precision: str | None = typer.Option(None, help="32 or bf16."),
    seed: int | None = typer.Option(None, min=0, help="Of weights, order and augmentation."),
    devices: str = typer.Option("auto", help="auto, cpu, cuda, mps, or how many."),
    minutes: float | None = typer.Option(None, help="Stop, judged and resumable, after this time."),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted training in --out."),
    as_json: bool = JSON,
) -> None:
    """Train a model: a recipe, or a name, spec or saved model on data. Interrupted, it goes on with --resume.

    Example: [bold]formery train vit_tiny photos/ --steps 2000[/bold], [bold]formery train recipes/digits_small.yaml[/bold]
    """
    from ..errors import BadFile, BadSpec
    from ..spec import from_pairs

    changes = from_pairs(set_ or [])
    named = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "precision": precision}
    given = {name: value for name, value in named.items() if value is not None}
    place = Path(out or f"runs/{Path(model).stem}")
    number = int(devices) if devices.isdigit() else devices
    limit = None if minutes is None else 60 * minutes
    if data:
        if steps is None:
            raise BadSpec("how many steps? give --steps N")
        if not is_saved(model):
            read_spec(model)
        from ..training.single import train_one

        facts = train_one(
            model if is_saved(model) else read_spec(model), data, place, {**given, "seed": seed or 0}, changes=changes or None,
            resume=resume, devices=number, time_limit=limit,
        )  # fmt: skip
    else:
        if not model.endswith((".yaml", ".yml")):
            raise BadSpec("train takes a recipe, or a model and data: formery train MODEL DATA --steps N")
        if not Path(model).is_file():
            raise BadFile(f"{model} does not exist")
        from ..training.recipes import run_recipe

        overrides = {**changes, **{f"train.{name}": value for name, value in given.items()}}
        if seed is not None:
            overrides["seed"] = seed
        facts = run_recipe(model, place, overrides, resume=resume, devices=number, time_limit=limit).facts
    if as_json:
        emit(facts)
        return
    shown = ", ".join(
        f"{name} {value:.4f}" for name, value in facts["metrics"]["validation"].items() if isinstance(value, float)
    )
    print(f"{facts['status']} after {facts['steps']} steps; validation {shown}")
    print(f"model: {place / 'model'}")
