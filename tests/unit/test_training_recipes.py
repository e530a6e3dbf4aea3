"""Recipes: read strictly, changed by paths, run to a saved model and a result that says everything."""

import json
from pathlib import Path

import pytest
import torch

from formery.errors import BadFile, BadSpec, UnknownName, Unwritable
from formery.formats import from_yaml, to_yaml
from formery.model import Model
from formery.tasks import task_of
from formery.training import load_recipe, run_recipe
from formery.training.finishing import RESULT
from formery.training.recipes import changed, parse

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
IMAGENET = sorted((Path(__file__).parents[2] / "recipes" / "imagenet").glob("*.yaml"))
SMALLEST = {"convnext_tiny": "convnext_atto", "vit_small": "vit_tiny"}

SMALL = """
title: Digits in a second
data: {source: digits, shifts: 1}
task: classify
model:
  stem: {kind: patches, dim: 8, size: 4}
  body: {kind: stack, layout: pooling attention, blocks: {attention: {mixer: {kind: attention, heads: 2}}}}
  head: classes
init: 0.1
train: {steps: 4, batch_size: 16, learning_rate: 1e-2, eval_every: 2}
expected: {metric: accuracy, at_least: 0.99, minutes: 0.1, machine: any}
test: true
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "small.yaml"


def test_a_recipe_is_run_and_told(path, tmp_path):
    out = tmp_path / "out"
    result = run_recipe(path, out, quiet=True)
    facts = json.loads((out / RESULT).read_text())
    assert facts == result.facts
    assert (facts["status"], facts["steps"], facts["met"], result.met) == ("finished", 4, False, False)
    assert facts["metrics"]["validation"] == result.training.metrics
    assert facts["metrics"]["test"]["items"] == facts["data"]["splits"]["test"]
    assert facts["config"]["warmup"] == 1
    assert facts["data"]["seed"] == facts["config"]["seed"] == facts["seed"] == 0
    assert len(facts["data"]["digest"]) == 64
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["machine"]["threads"] == torch.get_num_threads()
    assert facts["resolved"]["head"]["num_classes"] == 10
    saved = Model.from_pretrained(out / "model")
    assert saved.extra["classes"] == [str(n) for n in range(10)]
    assert saved.resolved == facts["resolved"]
    from formery.data import open_data

    data = open_data("digits", shifts=1)
    assert task_of(saved.extra["task"]).evaluate(saved, data) == facts["metrics"]["validation"]
    with pytest.raises(Unwritable, match="holds a run already"):
        run_recipe(path, out, quiet=True)


def test_an_interrupted_recipe_goes_on(path, tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(path, tmp_path / "a", quiet=True, on_progress=stop)
    assert not (tmp_path / "a" / RESULT).exists()
    one = run_recipe(path, tmp_path / "a", quiet=True, resume=True)
    two = run_recipe(path, tmp_path / "b", quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert one.facts["metrics"] == two.facts["metrics"]


def test_a_seed_is_for_weights_order_and_dropout(path, tmp_path):
    result = run_recipe(path, tmp_path / "out", {"seed": 7, "train.steps": 2, "test": False}, quiet=True)
    assert [result.facts[where]["seed"] for where in ("data", "config")] == [7, 7]
    assert "test" not in result.facts["metrics"]
    other = run_recipe(path, tmp_path / "other", {"train.steps": 2, "data.seed": 7, "train.seed": 7}, quiet=True)
    assert other.facts["data"]["digest"] == result.facts["data"]["digest"]
    assert not torch.equal(other.model.stem.conv.weight, result.model.stem.conv.weight)


def test_entries_are_replaced_by_paths(path):
    recipe = changed(
        load_recipe(path),
        {
            "train.learning_rate": 0.5,
            "data.source": "textures",
            "task.label_smoothing": 0.1,
            "model.body.blocks.1.mixer": "pooling",
        },
    )
    assert recipe.config.learning_rate == 0.5
    assert recipe.data == {"source": "textures", "shifts": 1}
    assert recipe.task == {"kind": "classify", "label_smoothing": 0.1}
    assert [block["mixer"]["kind"] for block in recipe.spec()["body"]["blocks"]] == ["pooling", "pooling"]
    assert load_recipe(path).config.learning_rate == 0.01


def test_models_can_be_named(path):
    recipe = changed(load_recipe(path), {"model": {"name": "poolformer_s12", "override": {"head.pool": "max"}}})
    assert recipe.spec()["head"]["pool"] == "max"
    assert changed(recipe, {"model": "poolformer_s12"}).spec()["name"] == "poolformer_s12"
    with pytest.raises(UnknownName, match="did you mean poolformer"):
        changed(recipe, {"model": "poolformer_s21"}).spec()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "a recipe has no entry 'titel'; did you mean title"),
        ({"train.stepz": 3}, "did you mean steps"),
        ({"train": {}}, "training needs steps"),
        ({"train.steps": "many"}, r"training\.steps: .*got 'many'"),
        ({"expected.at_leest": 1.0}, r"expected\.at_leest"),
        ({"expected.minutes": 0}, r"expected\.minutes: .*greater than 0"),
        ({"data": {}}, r"data\.source: is missing"),
        ({"title": 3}, r"title: .*string, got 3"),
        ({"title.deep": 3}, "title has nothing inside it"),
        ({"model.body.nowhere": 3}, "hits nothing"),
    ],
)
def test_what_does_not_fit_is_refused(path, change, message):
    with pytest.raises(BadSpec, match=message):
        changed(load_recipe(path), change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: [", r"broken\.yaml: not YAML"),
        ("- a", "a recipe is a mapping"),
        ("titel: x", "did you mean title"),
        ("title: x", "data: is missing"),
        (SMALL + "title: twice", "title is written twice"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, message):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(BadSpec, match=message):
        load_recipe(tmp_path / "broken.yaml")


def test_missing_files_are_refused(path, tmp_path):
    with pytest.raises(BadFile, match=r"big\.yaml does not exist; beside it there are: small\.yaml"):
        load_recipe(tmp_path / "big.yaml")
    with pytest.raises(BadFile, match="cannot read"):
        load_recipe(tmp_path)


def test_a_metric_nobody_measures_is_refused(path, tmp_path):
    with pytest.raises(BadSpec, match=r"expected\.metric: classify measures no 'acuracy'; did you mean accuracy"):
        run_recipe(path, tmp_path / "out", {"expected.metric": "acuracy"}, quiet=True)
    assert not (tmp_path / "out").exists()  # before the first step


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_run(shipped, tmp_path):
    """Two steps of each; what they promise is for the benchmarks."""
    recipe = load_recipe(shipped)
    assert parse(from_yaml(to_yaml(recipe.model_dump(mode="json", exclude_none=True)))) == recipe
    small = {"train.steps": 2, "train.batch_size": 2, "train.warmup": 0, "train.eval_every": 2, "test": False}
    if "saved" in recipe.model:
        first = shipped.with_name(f"{Path(recipe.model['saved']).name}.yaml")
        run_recipe(first, tmp_path / "first", small, quiet=True)
        small["model.saved"] = str(tmp_path / "first")
        small["train.head_only"] = 1
    small |= {"task": {"kind": "language", "length": 16}} if task_of(recipe.task).kind == "language" else {}
    result = run_recipe(recipe, tmp_path / "out", small, quiet=True)
    assert result.facts["steps"] == 2
    task = task_of(recipe.task)
    bar, bound = (recipe.expected.at_least, 0) if task.direction == "higher" else (recipe.expected.at_most, 8)
    assert recipe.expected.metric == task.metric
    assert bar is not None
    assert bar != bound


@pytest.mark.parametrize("shipped", IMAGENET, ids=lambda p: p.stem)
def test_recipes_for_imagenet_start(shipped, tmp_path):
    """On drawn images in folders as ImageNet's, with the smallest model of the family."""
    from formery.data.shapes import write_shapes

    recipe = load_recipe(shipped)
    assert recipe.spec()["name"] == shipped.stem == recipe.model["name"]
    assert recipe.config.steps * recipe.config.batch_size == pytest.approx(300 * 1281167, rel=1e-4)
    for part, seed in (("train", 0), ("val", 1)):
        write_shapes(tmp_path / "images" / part, 4, size=40, seed=seed, kinds=["disc", "star4"])
    small = {"train.steps": 1, "train.batch_size": 4, "train.accumulate": 2, "train.warmup": 0, "train.eval_every": 1}
    small |= {"data.source": str(tmp_path / "images"), "data.image_size": 32, "data.crop_from": 36}
    result = run_recipe(recipe, tmp_path / "out", small | {"model.name": SMALLEST[shipped.stem]}, quiet=True)
    assert result.facts["steps"] == 1
    assert result.facts["data"]["augmentation"]["cutmix"] == 1.0
    assert result.facts["data"]["splits"]["train"] < 8  # a part to test by is dealt out of it
    with pytest.raises(UnknownName, match="no data are called 'imagenet', and there is no such file or folder"):
        run_recipe(recipe, tmp_path / "none", quiet=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model.saved": "nowhere"}, BadFile, r"model\.saved: nowhere does not exist; run the recipe"),
        ({"model.body.depth": 3}, BadSpec, "built as it was saved"),
        ({"model": {"saved": "x", "name": "vit_tiny"}}, BadSpec, "no such entry|stem, body and head"),
    ],
)
def test_trained_models_of_recipes_are_checked(change, error, message, tmp_path):
    tuned = next(path for path in SHIPPED if path.stem == "shapes_tuned")
    with pytest.raises(error, match=message):
        run_recipe(tuned, tmp_path / "out", change, quiet=True)


def test_there_are_recipes():
    assert {path.stem for path in SHIPPED} >= {"digits_small", "pydoc_small", "shapes_scratch", "shapes_tuned"}
