"""Recipes: complete runs as YAML, from data to a saved model, each with the score, time and machine to expect.

title: A small hybrid on handwritten digits
data: {source: digits}
task: classify
model: {stem: ..., body: ..., head: ...}     # or {name: poolformer_s12, override: {...}}
train: {steps: 600, learning_rate: 0.003}
expected: {metric: accuracy, at_least: 0.985, minutes: 1.0, machine: two cores of an AMD EPYC}
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..create import model_spec
from ..data import open_data
from ..errors import BadFile, BadSpec, Unwritable
from ..formats import from_yaml
from ..registry import nearest
from ..spec import override
from ..tasks import task_of
from . import pictures as draw
from .changes import put
from .config import TrainConfig
from .finishing import RESULT, finished
from .loop import OnProgress, TrainResult, train
from .pretrained import fitted, loaded
from .processes import is_first
from .start import check_overruled, fresh_model, sized_by
from .started import TRAINING, recall

if TYPE_CHECKING:
    from ..model import Model
    from ..tasks.task import Task

REFERENCE = {"name", "override", "drop_path", "saved", "weights", "img_size"}


def refers(model: Mapping[str, Any]) -> bool:
    """Whether a recipe's model says where one is to be had, rather than how it is built."""
    return set(model) <= REFERENCE and ("name" in model) != ("saved" in model)


class Expected(BaseModel):
    """What a recipe promises, and where that was seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    minutes: float | None = Field(default=None, gt=0)
    """Null where it was not run by those who wrote it down."""
    machine: str

    def met(self, metrics: Mapping[str, float | int]) -> bool:
        """Whether metrics keep the promise."""
        value = metrics[self.metric]
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Recipe(BaseModel):
    """A whole run as plain data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    data: dict[str, Any]
    """`source`, and what its opener takes; its `seed` is the recipe's unless given."""
    task: str | dict[str, Any]
    model: str | dict[str, Any]
    """A name, a spec, {name, override, drop_path}, or a trained one: {saved} or {name, weights}, with img_size too."""
    train: dict[str, Any]
    """What `TrainConfig` takes; its `seed` is the recipe's unless given."""
    expected: Expected
    seed: int = Field(default=0, ge=0)
    """Of the initial weights, and of all else where nothing else is given."""
    init: Annotated[float, Field(gt=0)] | Literal["fan_in"] | None = "fan_in"
    """Scale of the initial weights, as `fresh_model` takes it."""
    test: bool = False
    """Whether the trained model is judged, once, on the test part as well."""

    @property
    def config(self) -> TrainConfig:
        """The settled config."""
        return TrainConfig.of({"seed": self.seed, **self.train})

    def spec(self) -> dict[str, Any]:
        """The resolved spec before the task fits it to the data; BadSpec for a trained model, which has its own."""
        if isinstance(self.model, dict) and refers(self.model):
            if self.trained:
                raise BadSpec("model: a trained model is built as it was saved; only its img_size and drop_path change")
            given = self.model
            return model_spec(given["name"], override=given.get("override"), drop_path_rate=given.get("drop_path"))
        return model_spec(self.model)

    @property
    def trained(self) -> bool:
        """Whether it begins with a trained model."""
        return isinstance(self.model, dict) and refers(self.model) and not {"saved", "weights"}.isdisjoint(self.model)

    def begin(self, changes: Mapping[str, Any]) -> tuple[Model, Any, Task]:
        """The model as it begins, the data, and the task; `changes` of the spec must not say what the data decide."""
        options = {"seed": self.seed, **self.data}
        source = options.pop("source")
        if self.trained:
            assert isinstance(self.model, dict)
            given = self.model
            start = Path(given["saved"]) if "saved" in given else str(given["name"])
            if isinstance(start, Path) and not start.is_dir():
                raise BadFile(
                    f"model.saved: {start} does not exist; run the recipe that makes it first, or name another"
                )
            named = {name: given.get(name) for name in ("weights", "img_size", "drop_path")}
            task = {"kind": self.task} if isinstance(self.task, str) else self.task
            with torch.random.fork_rng([]):
                torch.manual_seed(self.seed)
                net = loaded(start, **named, changes=given.get("override"))
                data, chosen = fitted(net, source, seed=options.pop("seed"), task=task, options=options)
            return net, data, chosen
        chosen = task_of(self.task)
        data = open_data(source, **options)
        check_overruled(changes, data)
        with sized_by(data):
            return fresh_model(chosen.fit_spec(self.spec(), data), seed=self.seed, init=self.init), data, chosen


@dataclass(frozen=True)
class RecipeResult:
    """What came of a recipe; `facts` is what `result.json` holds."""

    model: Model
    training: TrainResult
    facts: dict[str, Any]
    folder: Path

    @property
    def met(self) -> bool:
        """Whether the expected score was reached."""
        return bool(self.facts["met"])


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file; BadFile where there is none, BadSpec where it is not one."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [p.name for p in sorted(path.parent.glob("*.y*ml"))] if path.parent.is_dir() else []
        hint = f"; beside it there are: {', '.join(beside)}" if beside else ""
        raise BadFile(f"{path} does not exist{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"cannot read {path}: {error}") from None
    try:
        return parse(from_yaml(text))
    except BadSpec as error:
        raise BadSpec(f"{path}: {error}") from None


def parse(given: Any) -> Recipe:
    """A recipe from plain data; BadSpec names the place."""
    if not isinstance(given, dict):
        raise BadSpec(f"a recipe is a mapping with {', '.join(Recipe.model_fields)}, got {type(given).__name__}")
    for key in given:
        if key not in Recipe.model_fields:
            raise BadSpec(f"{key}: a recipe has no such entry; {nearest(str(key), Recipe.model_fields)}")
    try:
        recipe = Recipe.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = "is missing" if first["type"] == "missing" else f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise BadSpec(
            f"{place}: {message}" + ("" if first["type"] == "missing" else f", got {first['input']!r}")
        ) from None
    if not isinstance(recipe.data.get("source"), str):
        raise BadSpec("data.source: is missing; it names embedded data, or a path")
    _ = recipe.config
    return recipe


def changed(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with entries replaced: dotted paths to values.

    `train.steps`, `data.seed`, `seed`; a path below `model` is a glob of the model's resolved spec
    (`model.body.stages.0.mixer`).
    """
    given: dict[str, Any] = copy.deepcopy(recipe.model_dump(mode="python"))
    inside: dict[str, Any] = {}
    for path, value in overrides.items():
        first, _, rest = path.partition(".")
        if first not in Recipe.model_fields:
            raise BadSpec(f"override {path!r}: a recipe has no entry {first!r}; {nearest(first, Recipe.model_fields)}")
        here = given.get("model")
        if first == "model" and rest in REFERENCE - {"override"} and isinstance(here, dict) and refers(here):
            given["model"] = {**here, rest: value}
        elif first == "model" and rest:
            inside[rest] = value
        elif not rest:
            given[first] = value
        else:
            if first == "task" and isinstance(given[first], str):
                given[first] = {"kind": given[first]}
            put(given, path, value)
    if inside:
        given["model"] = override(parse(given).spec(), inside)
    return parse(given)


def run_recipe(
    recipe: str | Path | Recipe,
    out: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    devices: str | int = "auto",
    workers: int = 0,
    pictures: bool = False,
    time_limit: float | None = None,
    on_progress: OnProgress | None = None,
    quiet: bool = False,
) -> RecipeResult:
    """Open the data, create the model, train it, judge it and save it.

    Into `out` go `model/` (the best weights), `training/` (curve, checkpoints), `result.json` (recipe, resolved spec,
    seeds, digest of the data, metrics, versions, machine), and `pictures/` where they are asked for. Unwritable where
    `out` holds another run and `resume` is not asked for; a resumed one keeps the overrides it was started with.
    """
    out = Path(out)
    called = None if isinstance(recipe, Recipe) else str(recipe)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if resume:
        overrides = {**recall(out).get("overrides", {}), **(overrides or {})}
    recipe = changed(recipe, overrides or {})
    if not resume and (out / RESULT).exists():
        raise Unwritable(f"{out} holds a run already; choose another place, or go on with resume")
    task = task_of(recipe.task)
    if recipe.expected.metric not in task.metrics:
        hint = nearest(recipe.expected.metric, task.metrics)
        raise BadSpec(f"expected.metric: {task.kind} measures no {recipe.expected.metric!r}; {hint}")
    inside = {path.removeprefix("model."): value for path, value in (overrides or {}).items()}
    model, data, task = recipe.begin(inside)
    if pictures and is_first(devices):
        draw.before(data, out)
    training = train(
        model, data, task, recipe.config, folder=out / TRAINING, resume=resume, devices=devices, workers=workers,
        time_limit=time_limit, on_progress=on_progress, quiet=quiet,
        told={"model": called, "recipe": True, "overrides": dict(overrides or {})},
    )  # fmt: skip
    told = {
        "title": recipe.title,
        "expected": recipe.expected.model_dump(exclude_none=True),
        "met": recipe.expected.met(training.metrics),
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
    }
    found = finished(
        model, data, task, training, out, told=told, test=recipe.test, devices=devices, pictures=pictures
    )  # fmt: skip
    return RecipeResult(model, training, found, out)
