from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import formery
from formery.cli.places import run_folder
from tests.cli.conftest import LENGTH, Answer, pictures

Ask = Callable[..., Answer]
SHORT = ["--steps", "4", "--batch-size", "8", "--eval-every", "4"]


def test_what_a_run_leaves(made: Path) -> None:
    facts = json.loads((made / "image" / "result.json").read_text())
    assert facts["status"] == "finished"
    assert facts["steps"] == 120
    assert facts["metrics"]["validation"]["accuracy"] > 0.5
    model = formery.Model.from_pretrained(made / "image" / "model")
    assert model.extra["classes"] == [str(digit) for digit in range(10)]
    assert json.loads((made / "text" / "result.json").read_text())["task"]["length"] == LENGTH


@pytest.mark.usefixtures("shop")
def test_a_name_with_overrides_of_everything(ask: Ask, tmp_path: Path) -> None:
    small = ["--set", "body.blocks.*.channel=mlp", "--set", "stem.size=4", "--set", "train.ema=0.9"]
    more = ["--set", "task.label_smoothing=0.1", "--set", "data.shifts=0", "--seed", 3, "--learning-rate", 0.002]
    facts = ask("train", "image.yaml", "digits", *SHORT, *small, *more, "--out", tmp_path / "run", "--json").json
    assert facts["config"]["ema"] == 0.9
    assert facts["config"]["seed"] == 3
    assert facts["config"]["learning_rate"] == 0.002
    assert facts["task"]["label_smoothing"] == 0.1
    assert facts["data"]["augmentation"]["shifts"] == 0
    assert facts["resolved"]["stem"]["size"] == 4
    assert facts["out"] == str(tmp_path / "run")


@pytest.mark.usefixtures("shop")
def test_the_same_seed_gives_the_same_weights(ask: Ask, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert ask("train", "image.yaml", "digits", *SHORT, "--seed", seed, "--out", tmp_path / name).code == 0
    a, b, c = (formery.Model.from_pretrained(tmp_path / name / "model").state_dict() for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


@pytest.mark.usefixtures("shop")
def test_a_stopped_training_goes_on(ask: Ask, tmp_path: Path, refused: Callable[..., str]) -> None:
    out = tmp_path / "run"
    arguments = ["train", "image.yaml", "digits", *SHORT[2:], "--steps", 40, "--out", out]
    first = ask(*arguments, "--minutes", 1e-9, "--json").json
    assert first["status"] == "time limit"
    assert first["steps"] < 40
    assert "holds a run already" in refused(*arguments)
    second = ask(*arguments, "--resume", "--json").json
    assert second["status"] == "finished"
    assert second["steps"] == 40
    assert ask(*arguments[:-1], tmp_path / "whole").code == 0
    resumed, whole = (formery.Model.from_pretrained(f / "model").state_dict() for f in (out, tmp_path / "whole"))
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


@pytest.mark.usefixtures("shop")
def test_what_a_training_was_started_with_need_not_be_said_again(
    ask: Ask, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out, start = tmp_path / "run", ["train", "image.yaml", "digits", "--resume", "--out"]
    more = ["--epochs", 1, "--batch-size", 32, "--eval-every", 20, "--seed", 3, "--drop-path", 0.1]
    more += ["--set", "train.ema=0.9", "--set", "data.shifts=0", "--set", "body.blocks.0.channel=swiglu"]
    more += ["--set", "task.label_smoothing=0.1"]
    first = ask(*start[:-2], *more, "--minutes", 1e-9, "--out", out)
    assert first.code == 0, first.err
    assert "no training to go on with" not in first.err
    steps = json.loads((out / "result.json").read_text())["config"]["steps"]
    (out / "result.json").unlink()
    (out / "model").rename(tmp_path / "model")
    how = f"go on by: formery train image.yaml digits --out {out} --resume"
    for arguments in (["show", out], ["predict", out, "photos"], ["train", out, "digits", "--steps", 1]):
        said = refused(*arguments)
        assert f"{out} holds no model yet: its training was interrupted after step " in said
        assert how in said
    assert "learning_rate is 0.5, the training in" in refused(*start, out, "--learning-rate", 0.5)
    assert "steps is 3, the training in" in refused(*start, out, "--steps", 3)
    assert f"steps is {2 * steps}, the training in" in refused(*start, out, "--epochs", 2)
    facts = ask(*start, out, "--json").json
    assert (facts["status"], facts["steps"]) == ("finished", steps)
    assert ask(*start[:-2], *more, "--out", tmp_path / "whole").code == 0
    resumed, whole = (formery.Model.from_pretrained(f / "model").state_dict() for f in (out, tmp_path / "whole"))
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)
    answer = ask(*start, tmp_path / "new", *SHORT)
    assert f"there is no training to go on with in {tmp_path / 'new' / 'training'}; starting at" in answer.err


@pytest.mark.usefixtures("shop")
def test_a_saved_model_is_trained_further(ask: Ask, tmp_path: Path) -> None:
    further = ["--steps", "20", "--batch-size", "32", "--eval-every", "20", "--learning-rate", "0.0001"]
    facts = ask("train", "image", "digits", *further, "--out", tmp_path / "run", "--json").json
    before = json.loads(Path("image/result.json").read_text())["metrics"]["validation"]["accuracy"]
    assert facts["metrics"]["validation"]["accuracy"] > before - 0.05
    facts = ask("train", "text/model", "words.txt", *SHORT, "--out", tmp_path / "text", "--json").json
    assert facts["task"]["length"] == LENGTH


def test_other_classes_get_a_fresh_last_layer(shop: Path, ask: Ask, tmp_path: Path) -> None:
    """At the model's own size, and normalised as the data of its first training."""
    pictures(tmp_path / "data", ("cat", "dog"), 8, size=24)
    facts = ask("train", "image", tmp_path / "data", *SHORT, "--out", tmp_path / "run", "--json").json
    model, first = (formery.Model.from_pretrained(f / "model") for f in (tmp_path / "run", shop / "image"))
    assert model.extra["classes"] == ["cat", "dog"]
    assert model.num_classes == 2
    assert model.extra["preprocess"]["mean"] == first.extra["preprocess"]["mean"]
    assert facts["data"]["preprocess"]["size"] == [8, 8]
    kept = model.state_dict()["stem.conv.weight"]
    torch.testing.assert_close(kept, first.state_dict()["stem.conv.weight"], atol=0.02, rtol=0)
    assert ask("predict", tmp_path / "run", tmp_path / "data").code == 0


RECIPE = """
title: A small one
data: {source: digits}
task: classify
model:
  stem: {kind: patches, dim: 8, size: 4, in_chans: 1, img_size: 8}
  body: {kind: stack, layout: pooling, channel: mlp}
  head: {kind: classes, num_classes: 10}
train: {steps: 400, batch_size: 8}
expected: {metric: accuracy, at_least: 0.0, minutes: 1.0, machine: any}
"""


def test_a_recipe(ask: Ask, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RECIPE)
    changed = ["--set", "body.mixer=attention", "--set", "train.warmup=1", "--set", "title=Other"]
    facts = ask("train", "small.yaml", "--steps", 4, "--eval-every", 4, "--seed", 5, *changed, "--json").json
    assert facts["title"] == "Other"
    assert facts["seed"] == 5
    assert facts["steps"] == 4
    assert facts["config"]["warmup"] == 1
    assert facts["resolved"]["body"]["blocks"][0]["mixer"]["kind"] == "attention"
    assert facts["out"] == "runs/small"
    assert Path("runs/small/model/model.safetensors").is_file()
    assert "holds a run already" in refused("train", "small.yaml")
    assert "names its own data" in refused("train", "small.yaml", "digits")
    Path("wrong.yaml").write_text(RECIPE.replace("steps: 400", "stepps: 400"))
    assert "did you mean steps" in refused("train", "wrong.yaml")
    Path("wrong.yaml").write_text(RECIPE.replace("layout: pooling", "layout: poling"))
    assert "did you mean pooling" in refused("train", "wrong.yaml")
    Path("wrong.yaml").write_text("data: 3\n")
    assert "wrong.yaml" in refused("train", "wrong.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "missing argument"),
        (["vit_tiny"], "on what?"),
        (["vit_tiny", "digits"], "steps"),
        (["nosuch", "digits"], "no model is called"),
        (["nosuch.yaml", "digits"], "does not exist"),
        (["photos", "digits"], "no saved model"),
        (["garbage.onnx", "digits"], "exported model"),
        (["latin.yaml", "digits"], "not UTF-8"),
        (["types.yaml", "digits", *SHORT], "stem"),
        (["recipe.yaml", "digits"], "names its own data"),
        (["recipe.yaml"], "expected: is missing"),
        (["image.yaml", "nosuch", *SHORT], "no data are called"),
        (["image.yaml", "./nosuch", *SHORT], "does not exist"),
        (["image.yaml", "words.txt", *SHORT], "no vocab"),
        (["image.yaml", "empty", *SHORT], "empty"),
        (["image.yaml", "photos", *SHORT], "one class only"),
        (["image.yaml", "broken.png", *SHORT], "one image"),
        (["text.yaml", "digits", *SHORT], "image stem"),
        (["text.yaml", "same.txt", *SHORT], "repeats the byte"),
        (["text.yaml", "one.txt", *SHORT], "too short"),
        (["text", "words.txt", *SHORT, "--set", "task.length=100000"], "too short"),
        (["image", "words.txt", *SHORT], "text data"),
        (["image", "textures", *SHORT], "images of 3x"),
        (["image", "digits", *SHORT, "--set", "body.layout=pooling"], "as it was saved"),
        (["image.yaml", "digits", "--steps", "0"], "--steps"),
        (["image.yaml", "digits", "--steps", "many"], "--steps"),
        (["image.yaml", "digits", *SHORT, "--learning-rate", "inf"], "no finite number"),
        (["image.yaml", "digits", *SHORT, "--learning-rate", "-1"], "not above 0"),
        (["image.yaml", "digits", *SHORT, "--precision", "64"], "'32' or 'bf16'"),
        (["image.yaml", "digits", *SHORT, "--seed", str(10**30)], "--seed"),
        (["image.yaml", "digits", *SHORT, "--seed", "-1"], "--seed"),
        (["image.yaml", "digits", *SHORT, "--devices", "many"], "--devices"),
        (["image.yaml", "digits", *SHORT, "--devices", "0"], "--devices"),
        (["image.yaml", "digits", *SHORT, "--minutes", "nan"], "no finite number"),
        (["image.yaml", "digits", *SHORT, "--out", "words.txt"], "is a file"),
        (["image.yaml", "digits", *SHORT, "--out", "image"], "holds a run already"),
        (["image.yaml", "digits", *SHORT, "--set", "train.stepps=1"], "did you mean steps"),
        (["image.yaml", "digits", *SHORT, "--set", "train=1"], "train.NAME"),
        (["image.yaml", "digits", *SHORT, "--set", "data.nosuch=1"], "no option 'nosuch'"),
        (["image.yaml", "digits", *SHORT, "--set", "data.image_size=x"], "image_size"),
        (["vit_tiny", "digits", *SHORT], "got 8: the images of digits have that size; give --set data.image_size=..."),
        (
            ["vit_tiny", "digits", *SHORT, "--set", "stem.img_size=100"],
            "has image_size 8; give --set data.image_size=100",
        ),
        (["image.yaml", "digits", *SHORT, "--set", "head.num_classes=3"], "has num_classes 10; leave it out"),
        (["image.yaml", "digits", *SHORT, "--set", "task.nosuch=1"], "no such option"),
        (["image.yaml", "digits", *SHORT, "--set", "head.nosuch=1"], "head"),
        (["image.yaml", "digits", *SHORT, "--learning-rate", "1e30", "--set", "train.grad_clip=null"], "diverged"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    place = [] if "--out" in arguments or not arguments else ["--out", tmp_path / "run"]
    assert says in refused("train", *arguments, *place)


def test_data_that_are_no_numbers(shop: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    """A folder with a broken image; two classes that hold one picture."""
    for name in ("a", "b"):
        (tmp_path / "same" / name).mkdir(parents=True)
        for item in range(4):
            shutil.copy(shop / "photos" / "deep" / "0.png", tmp_path / "same" / name / f"{item}.png")
    assert "error" in refused("train", "image.yaml", tmp_path / "same", *SHORT, "--out", tmp_path / "run")
    shutil.copy(shop / "broken.png", tmp_path / "same" / "a" / "9.png")
    assert "9.png" in refused("train", "image.yaml", tmp_path / "same", *SHORT, "--out", tmp_path / "run")


@pytest.mark.usefixtures("shop")
def test_other_processes_of_a_training_say_nothing(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formery.training import single

    facts = {"metrics": {"validation": {"accuracy": 1.0}}, "status": "finished", "steps": 4}
    monkeypatch.setattr(single, "train_one", lambda *_, **__: facts)
    train = ["train", "image.yaml", "digits", *SHORT, "--devices", 2, "--out", tmp_path / "run"]
    assert "finished" in ask(*train).out
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ask(*train).out == ask(*train, "--json").out == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [("data.v1", "runs/data.v1"), ("a/data.v2/", "runs/data.v2"), ("words.txt", "runs/words.txt"), ("/", "runs/fit")],
)
def test_where_a_run_goes_unless_said(text: str, place: str) -> None:
    assert run_folder(text, "fit") == place


def test_where_a_run_on_the_folder_here_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos.v1" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos.v1" / "inner")
    assert run_folder(".", "fit") == "runs/inner"
    assert run_folder("..", "fit") == run_folder("../", "fit") == "runs/photos.v1"


def test_tuning_from_the_command_line(made: Path, ask: Ask, tmp_path: Path, refused: Callable[..., str]) -> None:
    """A saved model on a folder of other classes, with augmentation, a teacher and pictures."""
    pictures(tmp_path / "data", ("cat", "dog"), 8, size=24)
    teacher, pupil = tmp_path / "teacher", tmp_path / "pupil"
    tune = ["train", made / "image", tmp_path / "data", "--epochs", 2, "--batch-size", 4, "--layer-decay", 0.7]
    more = ["--image-size", 12, "--drop-path", 0.1, "--augment", "deit", "--set", "data.augment.crop=[0.5,1.0]"]
    facts = ask(*tune, *more, "--out", teacher, "--json").json
    assert facts["config"]["layer_decay"] == 0.7
    assert facts["data"]["augmentation"]["crop"] == [0.5, 1.0]
    assert facts["data"]["augmentation"]["cutmix"] == 1.0
    assert facts["resolved"]["stem"]["img_size"] == 12
    assert {file.name for file in (teacher / "pictures").iterdir()} == {
        "augmented.png",
        "curves.png",
        "predictions.png",
    }
    learn = ["train", made / "image.yaml", tmp_path / "data", *SHORT, "--image-size", 12, "--set", "data.in_chans=1"]
    facts = ask(
        *learn, "--teacher", teacher, "--set", "train.distill.alpha=0.3", "--no-pictures", "--out", pupil, "--json"
    )
    assert facts.json["config"]["distill"]["alpha"] == 0.3
    assert not (pupil / "pictures").exists()
    strange = ["--teacher", made / "image", "--out", tmp_path / "other"]
    assert "has not learned the class 'cat'" in refused(*learn, *strange)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image.yaml", "digits", *SHORT, "--augment", "strong"], "no preset is called 'strong'"),
        (["image.yaml", "digits", *SHORT, "--set", "data.augment.crop=3"], "augment.crop"),
        (["image.yaml", "digits", *SHORT, "--layer-decay", "2"], "less than or equal to 1"),
        (
            ["image.yaml", "digits", *SHORT, "--teacher", "nosuch"],
            "distill.teacher nosuch: no model is called 'nosuch'",
        ),
        (["image.yaml", "digits", *SHORT, "--teacher", "vit_tiny"], "nothing to teach"),
        (
            ["image.yaml", "digits", *SHORT, "--teacher", "image", "--set", "train.distill.form=firm"],
            "'soft' or 'hard'",
        ),
        (["image.yaml", "digits", *SHORT, "--epochs", "2"], "steps and epochs"),
        (["vit_tiny", "digits", *SHORT, "--weights", "nosuch.pth"], "nosuch.pth does not exist"),
        (["image", "digits", *SHORT, "--weights", "nosuch.pth"], "brings its own weights"),
        (["image", "digits", *SHORT, "--image-size", "9"], "9"),
        (["image", "digits", *SHORT, "--drop-path", "3"], "--drop-path"),
        (["text", "words.txt", *SHORT, "--image-size", "9"], "stem 'tokens' of this model has no such option"),
        (["text.yaml", "words.txt", *SHORT, "--teacher", "text"], "teachers are for classify"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes_in_tuning(arguments: list[str], says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    assert says in refused("train", *arguments, "--out", tmp_path / "run")


@pytest.mark.usefixtures("shop")
def test_a_run_trained_further_goes_where_nothing_is(ask: Ask) -> None:
    shutil.copytree("image", "runs/image")
    for model, place in (("runs/image", "runs/digits"), ("runs/image/model", "runs/again"), ("image", "runs/other")):
        more = [] if place == "runs/digits" else ["--out", place]
        assert ask("train", model, "digits", *SHORT, *more, "--no-pictures", "--json").json["out"] == place


@pytest.mark.usefixtures("shop")
def test_broken_images_are_left_out_and_counted(ask: Ask, tmp_path: Path, refused: Callable[..., str]) -> None:
    from formery.data.shapes import write_shapes

    images = write_shapes(tmp_path / "images", 6, size=8, kinds=["disc", "star4"])
    for number in range(2):
        (images / "disc" / f"x{number}.png").write_bytes(b"nothing")
    arguments = ["train", "image.yaml", images, *SHORT, "--image-size", 8, "--out", tmp_path / "run"]
    said = refused(*arguments)
    assert "2 of 14 images cannot be read" in said
    assert "x0.png" in said
    assert "x1.png" in said
    assert "--skip-broken" in said
    answer = ask(*arguments, "--skip-broken", "--no-pictures")
    assert answer.code == 0, answer.err
    assert "2 images could not be read and were left out: " in answer.err
