"""Predictions over files: rows, broken files, what a model must say of itself, bits per byte."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import formery
from formery.data import TextData, load_image, open_data
from formery.errors import BadData, BadFile, BadSpec
from formery.runtime.facts import ImageFacts, TextFacts, kind_of, read
from formery.runtime.given import open_for, task_for
from formery.runtime.predict import bits_of, lines, open_predictor, predict, write
from formery.tasks import task_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of every kind, a file that is none, and a hidden one."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    drawn = np.random.default_rng(0)
    grey = drawn.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey).resize((31, 17)).save(folder / "large.png")
    Image.fromarray(drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "colour.jpg")
    Image.fromarray(drawn.integers(0, 256, (8, 8, 4), dtype=np.uint8)).save(folder / "alpha.png")
    Image.fromarray(grey).convert("P").save(folder / "deep" / "palette.gif")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep" / "sixteen.png")
    Image.fromarray(grey > 127).save(folder / "deep" / "ä ö.bmp")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image either")
    return folder


# ------------------------------------------------------------------------------------------------ images


def test_a_row_is_what_the_model_says(model: formery.Model, photos: Path) -> None:
    rows = list(predict(model, photos, top=3))
    assert [Path(row["file"]).name for row in rows] == [
        "alpha.png", "colour.jpg", "grey.png", "large.png", "palette.gif", "sixteen.png", "ä ö.bmp"
    ]  # fmt: skip
    for row in rows:
        image = load_image(row["file"], model.extra["preprocess"])
        with torch.no_grad():
            chances = model(image[None]).softmax(-1)[0]
        values, indices = chances.topk(3)
        assert row["class"] == model.extra["classes"][indices[0]]
        assert [entry["class"] for entry in row["top"]] == [model.extra["classes"][i] for i in indices]
        assert [entry["probability"] for entry in row["top"]] == pytest.approx(values.tolist(), abs=2e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_the_batch_size_changes_nothing(batch_size: int, model: formery.Model, photos: Path) -> None:
    whole, parts = list(predict(model, photos)), list(predict(model, photos, batch_size=batch_size))
    assert [row["class"] for row in parts] == [row["class"] for row in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=2e-6)


def test_one_image_of_any_suffix(model: formery.Model, photos: Path) -> None:
    (photos / "grey.png").rename(photos / "grey")
    assert len(list(predict(model, photos / "grey"))) == 1


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_broken_images(batch_size: int, model: formery.Model, photos: Path) -> None:
    whole = (photos / "grey.png").read_bytes()
    (photos / "b1.png").write_bytes(whole[: len(whole) // 2])
    (photos / "b2.png").write_bytes(b"")
    with pytest.raises(BadData, match=r"b1\.png"):
        list(predict(model, photos, batch_size=batch_size))
    rows = list(predict(model, photos, batch_size=batch_size, skip_broken=True))
    broken = {Path(row["file"]).name: row for row in rows if "error" in row}
    assert set(broken) == {"b1.png", "b2.png"}
    assert all(row["class"] is None and "b" in row["error"] for row in broken.values())
    assert len(rows) == 9


def test_what_is_no_file(model: formery.Model, text_model: formery.Model, photos: Path) -> None:
    """A pipe that nobody writes to, a link to nothing: named, or skipped where that was asked for."""
    os.mkfifo(photos / "pipe.png")
    (photos / "gone.png").symlink_to(photos / "nowhere")
    with pytest.raises(BadFile, match=r"gone\.png is a link to nothing"):
        list(predict(model, photos))
    with pytest.raises(BadData, match=r"pipe\.png is a pipe"):
        list(predict(model, photos / "pipe.png"))
    rows = {Path(row["file"]).name: row for row in predict(model, photos, skip_broken=True)}
    assert {name for name, row in rows.items() if "error" in row} == {"pipe.png", "gone.png"}
    for name in ("pipe", "gone"):
        (photos / f"{name}.png").rename(photos / f"{name}.txt")
    texts = {Path(row["file"]).name: row for row in predict(text_model, photos, skip_broken=True)}
    assert "a pipe" in texts["pipe.txt"]["error"]
    assert "a link to nothing" in texts["gone.txt"]["error"]
    assert "error" not in texts["notes.txt"]


def test_names_that_are_no_text(model: formery.Model, photos: Path) -> None:
    (photos / "grey.png").rename(photos / os.fsdecode(b"caf\xe9.png"))
    for kind in ("csv", "jsonl"):
        assert write(predict(model, photos), photos / f"rows.{kind}") == 7
        assert r"caf\udce9.png" in (photos / f"rows.{kind}").read_text(encoding="utf-8")


def test_folders_without_images(model: formery.Model, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no images"):
        list(predict(model, tmp_path))
    with pytest.raises(BadFile, match="does not exist"):
        predict(model, tmp_path / "nosuch")


@pytest.mark.parametrize(
    ("options", "says"), [({"top": 11}, "at most 10"), ({"top": 0}, "at least 1"), ({"batch_size": 0}, "at least 1")]
)
def test_options_that_make_no_sense(options: dict[str, int], says: str, model: formery.Model, photos: Path) -> None:
    with pytest.raises(BadSpec, match=says):
        predict(model, photos, **options)  # type: ignore[arg-type]


class Fixed(nn.Module):
    """Says the same of every image."""

    def __init__(self, scores: list[float], extra: dict[str, Any]) -> None:
        super().__init__()
        self.scores, self.extra = torch.tensor(scores), extra

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores.expand(len(inputs), -1)


def test_a_model_that_does_not_know_its_classes(model: formery.Model, photos: Path) -> None:
    with pytest.raises(BadFile, match=r"\[3\] scores an image, but names 10 classes"):
        list(predict(Fixed([0, 1, 2], model.extra), photos))  # type: ignore[arg-type]
    with pytest.raises(BadFile, match="no finite numbers"):
        list(predict(Fixed([0.0] * 9 + [torch.nan], model.extra), photos))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ texts


@pytest.mark.parametrize("length", [1, 2, 7, 12, 64])
@pytest.mark.parametrize("num", [2, 3, 12, 13, 25, 100])
def test_bits_are_those_of_the_task(length: int, num: int, text_model: formery.Model) -> None:
    """As if the whole text were a part that is judged."""
    text = bytes(torch.randint(32, 127, (num,), generator=torch.Generator().manual_seed(num)).tolist())
    data = TextData(text + bytes(range(100)), bounds=(num + 20, num + 60))
    data.spans = {"train": (0, num + 100), "validation": (0, num), "test": (num, num + 100)}
    judged = task_of({"kind": "language", "length": length}).evaluate(text_model, data, "validation")
    bits = bits_of(text_model, torch.frombuffer(bytearray(text), dtype=torch.uint8), length, batch_size=4)
    assert judged["items"] == num - 1
    assert bits / (num - 1) == pytest.approx(judged["bits_per_byte"], rel=1e-5)


def test_every_byte_is_predicted_once_from_enough_before_it() -> None:
    """A model that bets all on the length of what it sees."""
    seen: list[int] = []

    class Watching(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            seen.extend([ids.shape[1]] * len(ids))
            return torch.zeros(*ids.shape, 256)

    bits = bits_of(Watching(), torch.zeros(41, dtype=torch.uint8), 8, batch_size=3)
    assert bits == pytest.approx(8 * 40)
    assert seen == [4, *[8] * 9]


def test_rows_of_texts(text_model: formery.Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello world, hello world")
    (tmp_path / "b.md").write_bytes(b"\xff\xfe\x00\x01")
    rows = list(predict(text_model, tmp_path))
    assert [(Path(row["file"]).name, row["bytes"]) for row in rows] == [("a.txt", 24), ("b.md", 4)]
    (tmp_path / "c.txt").write_text("x")
    (tmp_path / "d.png").write_text("looks like an image")
    with pytest.raises(BadData, match=r"c\.txt has 1 bytes"):
        list(predict(text_model, tmp_path))
    rows = list(predict(text_model, tmp_path, skip_broken=True))
    assert [row.get("error") is not None for row in rows] == [False, False, True, True]
    with pytest.raises(BadSpec, match="language model"):
        predict(text_model, tmp_path, top=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadData, match="no files"):
        list(predict(text_model, tmp_path / "empty"))


# ------------------------------------------------------------------------------------------------ facts


PREPROCESS = {"mean": [0.5], "std": [0.2], "size": [8, 8], "channels": 1, "interpolation": "bilinear", "fit": "squash"}


def test_what_a_model_was_trained_for() -> None:
    assert kind_of({"task": {"kind": "language"}}) == "language"
    assert kind_of({"classes": ["a"], "preprocess": {}}) == "classify"
    assert kind_of({"tokens": "bytes"}) == "language"
    for extra in ({}, {"task": 3}, {"task": {"kind": 3}}):
        with pytest.raises(BadFile, match="does not say"):
            kind_of(extra)
    assert read(TextFacts, {"tokens": "bytes"}).task.length == 256
    assert read(ImageFacts, {"classes": ["a"], "preprocess": PREPROCESS}).preprocess.size == [8, 8]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"classes": None}, "classes"),
        ({"classes": []}, "classes"),
        ({"classes": [1, 2]}, "classes.0"),
        ({"preprocess": "x"}, "preprocess"),
        ({"preprocess": {**PREPROCESS, "size": [8]}}, "preprocess.size"),
        ({"preprocess": {**PREPROCESS, "size": [8, -8]}}, "preprocess.size.1"),
        ({"preprocess": {**PREPROCESS, "size": [8, 10**9]}}, "preprocess.size.1"),
        ({"preprocess": {**PREPROCESS, "std": [0.0]}}, "preprocess.std.0"),
        ({"preprocess": {**PREPROCESS, "mean": [float("nan")]}}, "preprocess.mean.0"),
        ({"preprocess": {**PREPROCESS, "channels": 2}}, "preprocess.channels"),
        ({"preprocess": {**PREPROCESS, "fit": "stretch"}}, "preprocess.fit"),
        ({"preprocess": {k: v for k, v in PREPROCESS.items() if k != "mean"}}, "preprocess.mean"),
    ],
)
def test_damaged_facts_of_image_models(changes: dict[str, Any], place: str, photos: Path) -> None:
    extra = {"classes": ["a", "b"], "preprocess": PREPROCESS} | changes
    with pytest.raises(BadFile, match=f"{place} "):
        predict(Fixed([0, 1], extra), photos)  # type: ignore[arg-type]


@pytest.mark.parametrize("extra", [{"tokens": "words"}, {"task": {"kind": "language", "length": 0}, "tokens": "bytes"}])
def test_damaged_facts_of_language_models(extra: dict[str, Any], photos: Path) -> None:
    with pytest.raises(BadFile, match="damaged or incomplete"):
        predict(Fixed([0, 1], extra), photos)  # type: ignore[arg-type]


def test_models_for_another_task(photos: Path) -> None:
    with pytest.raises(BadFile, match="'forecast'"):
        predict(Fixed([0, 1], {"task": {"kind": "forecast"}}), photos)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ opening


def test_what_opens(model: formery.Model, photos: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "run" / "model")
    first = list(predict(model, photos))
    for place in ("run", "run/model"):
        opened = open_predictor(tmp_path / place)
        assert not opened.training
        assert list(predict(opened, photos)) == first
    (tmp_path / "file").write_text("x")
    for place in ("nosuch", "file", "photos", "nosuch.onnx"):
        with pytest.raises(BadFile):
            open_predictor(tmp_path / place)


def test_nothing_is_ever_unpickled(
    model: formery.Model, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a whole model, nor by one whose weights are a pickle under the right name."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert list(predict(open_predictor(tmp_path / "model"), photos))

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "model" / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadFile):
        open_predictor(tmp_path / "model")
    (tmp_path / "trap.onnx").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadFile):
        open_predictor(tmp_path / "trap.onnx")
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------ writing

ROWS = [
    {"file": 'a,"b".png', "class": "cat\nfish", "probability": 0.5, "top": [
        {"class": "cat\nfish", "probability": 0.5}, {"class": "dog", "probability": 0.25}]},
    {"file": "c.png", "class": None, "probability": None, "error": "broken"},
]  # fmt: skip


def test_csv_and_json_lines_give_back_what_went_in(tmp_path: Path) -> None:
    assert write(iter(ROWS), tmp_path / "rows.csv", top=2) == 2
    with open(tmp_path / "rows.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["file", "class", "probability", "class_2", "probability_2", "error"]
    assert table[0]["file"] == 'a,"b".png'
    assert table[0]["class"] == "cat\nfish"
    assert table[0]["class_2"] == "dog"
    assert table[1] == dict.fromkeys(table[1], "") | {"file": "c.png", "error": "broken"}
    assert write(iter(ROWS), tmp_path / "rows.jsonl") == 2
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == ROWS


def test_the_header_does_not_depend_on_the_first_row() -> None:
    turned = [next(csv.reader(io.StringIO("".join(lines(rows, "csv", top=2))))) for rows in (ROWS, ROWS[::-1])]
    assert turned[0] == turned[1]


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise BadData("broken")

    with pytest.raises(BadData):
        write(failing(), tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadSpec, match=r"\.csv or \.jsonl"):
        write(iter(ROWS), tmp_path / "rows.parquet")


# ------------------------------------------------------------------------------------------------ data of a model


def test_data_are_seen_as_in_training(model: formery.Model, photos: Path) -> None:
    folder = photos.parent / "classes"
    drawn = np.random.default_rng(1)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for item in range(5):
            pixels = drawn.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{item}.png")
    data = open_for(model, str(folder))
    assert (data.in_chans, data.image_size) == (1, 8)
    assert data.preprocess["mean"] == model.extra["preprocess"]["mean"]
    images, _ = next(data.validation().batches(9))
    file = next(folder.rglob("*.png"))
    ours = {load_image(path, model.extra["preprocess"]).numpy().tobytes() for path in folder.rglob("*.png")}
    assert file.exists()
    assert all(image.numpy().tobytes() in ours for image in images)
    with pytest.raises(BadData, match="other classes"):
        task_for(model, data)


def test_data_that_do_not_go_in(model: formery.Model, text_model: formery.Model, digits: Any) -> None:
    for subject, source, says in (
        (model, "pydoc", "text data"),
        (text_model, "digits", "image data"),
        (model, "textures", "images of 3x8x8"),
        (model, open_data("digits", image_size=16), "images of 1x16x16"),
    ):
        with pytest.raises(BadData, match=says):
            open_for(subject, source)
    assert open_for(model, digits) is digits
    assert task_for(model, digits).kind == "classify"
