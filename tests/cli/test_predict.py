from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer

Ask = Callable[..., Answer]
NAMES = ["colour.jpg", "ä lpha.png", "deep/0.png", "deep/1.png", "deep/2.png"]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.usefixtures("shop")
def test_a_row_for_every_image_below_a_folder(ask: Ask) -> None:
    found = rows(ask("predict", "image", "photos").out)
    assert [row["file"] for row in found] == [f"photos/{name}" for name in NAMES]
    assert all(row["class"] in set("0123456789") and 0 < float(row["probability"]) <= 1 for row in found)
    assert found[2]["class"] == "0"  # what it has learned


@pytest.mark.usefixtures("shop")
def test_json_lines_say_the_same(ask: Ask) -> None:
    lines = [json.loads(line) for line in ask("predict", "image", "photos", "--json").out.splitlines()]
    for row, line in zip(rows(ask("predict", "image", "photos").out), lines, strict=True):
        assert row["file"] == line["file"]
        assert row["class"] == line["class"]
        assert float(row["probability"]) == line["probability"]


@pytest.mark.usefixtures("shop")
def test_the_likeliest_classes(ask: Ask) -> None:
    row = rows(ask("predict", "image", "photos/deep/0.png", "--top", 10).out)[0]
    chances = [float(row["probability"]), *(float(row[f"probability_{place}"]) for place in range(2, 11))]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    line = json.loads(ask("predict", "image", "photos/deep/0.png", "--top", 2, "--json").out)
    assert [entry["class"] for entry in line["top"]] == [row["class"], row["class_2"]]


@pytest.mark.usefixtures("shop")
def test_the_folders_of_a_run_and_of_its_model_are_as_good(ask: Ask) -> None:
    assert ask("predict", "image", "photos").out == ask("predict", "image/model", "photos").out


def test_an_exported_model_says_the_same(exported: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    ours, theirs = (rows(ask("predict", model, "photos").out) for model in ("image", "image.onnx"))
    assert [row["class"] for row in ours] == [row["class"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)
    ours, theirs = (rows(ask("predict", model, "words.txt").out) for model in ("text", "text.onnx"))
    assert float(ours[0]["bits_per_byte"]) == pytest.approx(float(theirs[0]["bits_per_byte"]), abs=1e-4)


@pytest.mark.usefixtures("shop")
def test_broken_images_stop_or_are_said(ask: Ask, refused: Callable[..., str]) -> None:
    assert "0 broken.png" in refused("predict", "image", "mixed", "--stop-at-broken")
    found = rows(ask("predict", "image", "mixed", "--skip-broken", "--top", 2).out)
    assert len(found) == len(NAMES) + 1
    assert "truncated" in found[0]["error"]
    assert not found[0]["class"]
    assert all(row["class"] and row["class_2"] and not row["error"] for row in found[1:])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.ndjson", "new/deep/rows.CSV"])
def test_into_a_file(name: str, ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / name
    answer = ask("predict", "image", "photos", "--out", out)
    assert answer.out == f"5 rows in {out}\n"
    text = out.read_text(encoding="utf-8")
    shown = ask("predict", "image", "photos", *([] if name.lower().endswith("csv") else ["--json"])).out
    assert text == shown
    assert ask("predict", "image", "photos", "--out", out, "--json").json == {"out": str(out), "rows": 5}
    assert [file.name for file in out.parent.iterdir()] == [out.name]


@pytest.mark.usefixtures("shop")
def test_a_failure_leaves_the_file_that_was_there(refused: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("before")
    refused("predict", "image", "mixed", "--stop-at-broken", "--out", out)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]
    assert out.read_text() == "before"


@pytest.mark.usefixtures("shop")
def test_names_that_are_no_text(ask: Ask, tmp_path: Path) -> None:
    import os
    import shutil

    name = os.fsencode(tmp_path) + b"/\xff.png"
    shutil.copy("photos/deep/0.png", os.fsdecode(name))
    ask("predict", "image", tmp_path, "--out", tmp_path / "rows.jsonl")
    row = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))
    assert os.fsencode(row["file"]) == name


@pytest.mark.usefixtures("shop")
def test_bits_of_texts(ask: Ask, tmp_path: Path) -> None:
    for name in ("a.txt", "b.py"):
        (tmp_path / name).write_text(Path("words.txt").read_text()[:200])
    found = rows(ask("predict", "text", tmp_path).out)
    assert [row["bytes"] for row in found] == ["200", "200"]
    assert 0 < float(found[0]["bits_per_byte"]) < 9
    (tmp_path / "c.png").write_bytes(b"x")
    assert rows(ask("predict", "text", tmp_path, "--skip-broken").out)[2]["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image", "nosuch"], "does not exist"),
        (["image", ""], "does not exist"),
        (["nosuch", "photos"], "no model is called"),
        (["", "photos"], "no model is named"),
        (["vit_tiny", "photos"], "learned nothing"),
        (["image.yaml", "photos"], "learned nothing"),
        (["photos", "photos"], "no saved model"),
        (["garbage.onnx", "photos"], "no ONNX model"),
        (["zero.onnx", "photos"], "no ONNX model"),
        (["empty", "photos"], "no saved model"),
        (["image", "empty"], "holds no images"),
        (["image", "zero.png"], "not a readable image"),
        (["image", "broken.png"], "truncated"),
        (["image", "words.txt"], "not a readable image"),
        (["image", "photos", "--top", "11"], "at most 10"),
        (["image", "photos", "--top", "0"], "--top"),
        (["image", "photos", "--batch-size", "0"], "--batch-size"),
        (["image", "photos", "--out", "rows.txt"], ".csv"),
        (["image", "photos", "--out", "photos"], ".csv"),
        (["image", "photos", "--out", "words.txt/rows.csv"], "is a file"),
        (["image", "photos", "--out", "/proc/nosuch.csv"], "cannot write"),
        (["text", "one.txt"], "at least 2"),
        (["text", "empty"], "holds no files"),
        (["text", "photos", "--stop-at-broken"], "no text"),
        (["text", "words.txt", "--top", "2"], "language model"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, refused: Callable[..., str]) -> None:
    assert says in refused("predict", *arguments)


def test_a_folder_in_the_place_of_the_file(shop: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "rows.csv").mkdir()
    assert "is a folder" in refused("predict", "image", "photos", "--out", tmp_path / "rows.csv")
    (tmp_path / "pipe.csv").symlink_to("/dev/full")
    assert "device" in refused("predict", "image", "photos", "--out", tmp_path / "pipe.csv")
    assert shop.is_dir()


@pytest.mark.usefixtures("shop")
def test_broken_files_are_counted_and_said(ask: Ask, refused: Callable[..., str], tmp_path: Path) -> None:
    answer = ask("predict", "image", "mixed", "--out", tmp_path / "rows.csv")
    assert answer.code == 0
    assert answer.err.startswith("1 of 6 files could not be read: mixed/0 broken.png")
    assert len(rows((tmp_path / "rows.csv").read_text())) == 6
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "0.png").write_bytes(b"none")
    assert "none of 2 files could be read" in refused(
        "predict", "image", tmp_path / "broken", "--out", tmp_path / "n.csv"
    )
    assert not (tmp_path / "n.csv").exists()


@pytest.mark.usefixtures("shop")
def test_folders_named_like_classes_say_what_is_right(ask: Ask, refused: Callable[..., str], tmp_path: Path) -> None:
    import shutil

    from PIL import Image

    for file, label in (("0", "0"), ("1", "1"), ("2", "7")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        shutil.copy(f"photos/deep/{file}.png", tmp_path / "photos" / label / f"{file}.png")
    place = ["--out", tmp_path / "rows.csv", "--sheet", tmp_path / "sheet.png"]
    found = ask("predict", "image", tmp_path / "photos", *place, "--json").json
    given = rows((tmp_path / "rows.csv").read_text())
    right = sum(Path(row["file"]).parent.name == row["class"] for row in given)
    assert found == {"out": str(place[1]), "rows": 3, "accuracy": right / 3, "labelled": 3}
    assert right < 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        red = sum(num for num, colour in sheet.convert("RGB").getcolors(1 << 20) if colour == (0xC6, 0x28, 0x28))
    assert red > 500 * (3 - right)
    assert "for classes of images" in refused("predict", "text", "words.txt", "--sheet", tmp_path / "other.png")
    assert "--sheet is a file" in refused("predict", "image", "photos", "--sheet", "sheet.txt")
