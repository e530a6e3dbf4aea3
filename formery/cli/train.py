"""`formery train`: one model on one data set, or a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

from .models import SPEC_SUFFIXES, Subject, changes_of, find, is_recipe, read_mapping
from .options import DATA_HELP, LARGEST_SEED, MODEL_HELP, above_zero
from .output import JSON, counted, emit, say
from .places import check_data, folder_to_write, run_folder

DEVICES = ("auto", "cpu", "cuda", "mps")
BESIDE = ("train", "data", "task")
"""What `--set` reaches beside the model."""


def command(
    model: str = typer.Argument(
        help=f"A recipe (.yaml with data, model and train), or a model: {MODEL_HELP[0].lower()}{MODEL_HELP[1:]}"
    ),
    data: str = typer.Argument("", help=f"{DATA_HELP} A recipe names its own."),
    out: str = typer.Option(
        "",
        "--out",
        "-o",
        metavar="DIR",
        help="Where everything goes; runs/MODEL unless given, runs/DATA for a model from there.",
    ),
    set_: list[str] = typer.Option(
        None,
        "--set",
        metavar="PATH=VALUE",
        help="Replace a node of the spec, or set train.*, data.*, task.*; repeatable.",
    ),
    steps: int | None = typer.Option(None, min=1, help="Training steps; needed unless --epochs or a recipe says so."),
    epochs: float | None = typer.Option(None, callback=above_zero, help="Times each training image is seen."),
    batch_size: int | None = typer.Option(None, min=1, help="Items a step."),
    learning_rate: float | None = typer.Option(None, callback=above_zero, help="The highest rate."),
    eval_every: int | None = typer.Option(
        None, min=1, help="Steps between judgements on the validation part; a twentieth of all unless given."
    ),
    precision: str | None = typer.Option(None, help="32 or bf16."),
    weights: str = typer.Option(
        "", metavar="PATH", help="Weights of a named model: a file, a folder (a run's, too), or hf-hub:OWNER/NAME."
    ),
    image_size: int | None = typer.Option(
        None, min=1, max=4096, help="Side of the images; a trained model is resized."
    ),
    augment: str = typer.Option("", metavar="NAME", help="none, light, trivial or deit; more by --set data.augment.*."),
    drop_path: float | None = typer.Option(None, min=0, max=0.99, help="Stochastic depth of the last block."),
    layer_decay: float | None = typer.Option(
        None, callback=above_zero, help="What the rate of each layer is of the one above it."
    ),
    teacher: str = typer.Option("", metavar="MODEL", help="Learn from its scores too; more by --set train.distill.*."),
    seed: int | None = typer.Option(None, min=0, max=LARGEST_SEED, help="Of weights, order and augmentation."),
    devices: str = typer.Option("auto", help="auto, cpu, cuda, mps, or how many."),
    minutes: float | None = typer.Option(
        None, callback=above_zero, help="Stop, judged and resumable, after this time."
    ),
    workers: int = typer.Option(0, min=0, max=256, help="Processes that prepare batches."),
    pictures: bool = typer.Option(True, help="Draw curves, augmented images and predictions into DIR/pictures."),
    skip_broken: bool = typer.Option(
        False, "--skip-broken", help="Leave out images that cannot be read, and say how many; else they stop it."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted training in --out."),
    as_json: bool = JSON,
) -> None:
    """Train a model: a recipe, or a name, spec or saved model on data.

    Interrupted, it goes on by --resume with the options it was started with.

    Example: [bold]formery train vit_tiny photos/ --steps 2000[/bold], [bold]formery train runs/photos others/
    --epochs 20 --layer-decay 0.7[/bold], [bold]formery train recipes/digits_small.yaml[/bold]
    """
    from ..training.processes import is_first
    from ..training.started import how_to_go_on
    from . import Terminated

    named = {
        "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "eval_every": eval_every,
        "precision": precision, "layer_decay": layer_decay,
    }  # fmt: skip
    given = {name: value for name, value in named.items() if value is not None}
    changes = changes_of(set_)
    for path, value in (("data.augment.like", augment), ("train.distill.teacher", teacher)):
        if value:
            changes[path] = value
    if skip_broken:
        changes["data.broken"] = "skip"
    how: dict[str, Any] = {"resume": resume, "devices": _devices(devices), "workers": workers, "pictures": pictures}
    begin = {"weights": weights or None, "image_size": image_size, "drop_path": drop_path, "epochs": epochs}
    how["time_limit"] = None if minutes is None else 60 * minutes
    recipe = Path(model).suffix.lower() in SPEC_SUFFIXES and is_recipe(read_mapping(model))
    if recipe:
        _check_begin(model, begin)
    try:
        facts = (_recipe if recipe else partial(_single, begin=begin))(model, data, out, changes, given, seed, how)
    except (KeyboardInterrupt, SystemExit) as error:  # Ctrl-C, and SIGTERM
        if isinstance(error, Terminated) or (hint := how_to_go_on(_place(model, data, out, recipe))) is None:
            raise
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(hint) from None
        say(f"stopped {hint}", stderr=True)
        raise
    if not is_first(how["devices"]):
        return
    if left := facts.get("data", {}).get("broken"):
        say(
            f"{counted(left, 'image')} could not be read and were left out: {facts['data']['first_broken']}",
            stderr=True,
        )
    if as_json:
        emit(facts)
        return
    metrics = facts["metrics"]["validation"]
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))
    say(f"{facts['status']} after {facts['steps']} steps; validation {shown}")
    say(f"model: {Path(facts['out']) / 'model'}")
    if pictures:
        say(f"pictures: {Path(facts['out']) / 'pictures'}")


def _recipe(
    path: str, data: str, out: str, changes: dict[str, Any], given: dict[str, Any], seed: int | None,
    how: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Run a recipe, with what the command line says instead of what it says."""
    from ..errors import BadSpec
    from ..spec import MODEL

    if data:
        raise BadSpec(f"{path} is a recipe and names its own data; leave {data} out, or give --set data.source={data}")
    place = folder_to_write(str(_place(path, data, out, recipe=True)))
    overrides = {f"model.{glob}" if glob.partition(".")[0] in MODEL else glob: v for glob, v in changes.items()}
    overrides |= {f"train.{name}": value for name, value in given.items()}
    if seed is not None:
        overrides["seed"] = seed

    from ..training.recipes import run_recipe

    return run_recipe(path, place, overrides, **how).facts | {"out": str(place)}


def _single(
    model: str, data: str, out: str, changes: dict[str, Any], given: dict[str, Any], seed: int | None,
    how: dict[str, Any], *, begin: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Train a spec from its first weights, or a trained model further."""
    from ..errors import BadSpec
    from ..training.config import TrainConfig
    from ..training.started import recall

    if not data:
        raise BadSpec(f"train {model} on what? give data: {DATA_HELP}")
    subject = find(model)
    beside, inside = _sorted_out(changes)
    if inside and subject.kind == "saved":
        raise BadSpec(f"{model} is built as it was saved; --set of its spec goes with names and spec files")
    if begin["weights"] and subject.kind != "spec":
        raise BadSpec(f"{model} brings its own weights; leave --weights out")
    config = {**({} if seed is None else {"seed": seed}), **beside["train"], **given}
    place = folder_to_write(out or _home(subject, data))
    known = recall(place) if how["resume"] else {}
    if begin["epochs"] is None or "steps" in config:
        TrainConfig.of({"steps": known["steps"], **config} if known else config)
    check_data(data)

    from ..training.single import train_one

    start: Mapping[str, Any] | Path = subject.path if subject.kind != "spec" else subject.spec or {}
    facts = train_one(
        start, data, place, config, changes=inside or None, options=beside["data"], task=beside["task"], called=model,
        **begin, **how,
    )  # fmt: skip
    return facts | {"out": str(place)}


def _place(model: str, data: str, out: str, recipe: bool) -> Path:
    """Where a run goes."""
    return Path(out or (f"runs/{Path(model).stem}" if recipe else _home(find(model), data)))


def _check_begin(recipe: str, begin: dict[str, Any]) -> None:
    """BadSpec for options that a recipe says itself."""
    from ..errors import BadSpec

    says = {"weights": "model.weights", "image_size": "data.image_size, model.img_size", "drop_path": "model.drop_path",
            "epochs": "train.steps"}  # fmt: skip
    for name, value in begin.items():
        if value is not None:
            raise BadSpec(f"{recipe} is a recipe: give --set {says[name]}=... instead of --{name.replace('_', '-')}")


def _sorted_out(changes: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What `--set` says of training, data and task, each by name; and what it says of the spec."""
    from ..errors import BadSpec
    from ..training.changes import put

    beside: dict[str, dict[str, Any]] = {name: {} for name in BESIDE}
    inside: dict[str, Any] = {}
    for path, value in changes.items():
        first, _, rest = path.partition(".")
        if first not in beside:
            inside[path] = value
        elif not rest:
            raise BadSpec(f"--set {path}: {first} has options such as {first}.NAME=VALUE")
        else:
            put(beside[first], rest, value)
    return beside, inside


def _devices(text: str) -> str | int:
    from ..errors import BadSpec

    if text in DEVICES:
        return text
    if text.isascii() and text.isdigit() and 0 < int(text) <= 4096:
        return int(text)
    raise BadSpec(f"--devices is {', '.join(DEVICES)}, or how many, got {text!r}")


def _home(subject: Subject, data: str) -> str:
    """Where the run of a model goes unless said: by its name, or where it stands there itself, by that of the data."""
    path = subject.path
    if subject.kind == "spec":
        return run_folder(path.stem if path.suffix.lower() in SPEC_SUFFIXES else path.name, "model")
    folder = path.resolve().parent if path.name == "model" else path
    home = run_folder(str(folder), "model")
    return home if Path(home).resolve() != folder.resolve() else run_folder(data, "data")
