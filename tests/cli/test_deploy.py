from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from formery.data import open_data
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


def test_what_is_said_and_what_serves_afterwards(shop: Path, ask: Ask, tmp_path: Path) -> None:
    place = tmp_path / "served"
    quick = ["--seconds", 0.2, "--at-least", 0, "--threads", 1]
    answer = ask("deploy", "image", "--out", place, "--forms", "packed", "--data", "digits", *quick)
    assert "fold: " in answer.out
    assert "packed" in answer.out
    assert f"written to {place}" in answer.out
    judged = len(open_data("digits").validation())
    assert f"judged on {judged} images of the validation part of digits" in answer.out
    assert "form: packed" in answer.err
    assert sorted(p.name for p in place.iterdir()) == ["config.json", "deploy.json", "deploy.png", "model.safetensors"]
    report = ask("deploy", "image", "--out", tmp_path / "again", "--forms", "", *quick, "--json").json
    assert report["chosen"] == "eager"
    assert report["images"] == "images of the validation part of digits", "what it was trained on"
    assert report["judged"] == judged
    rows = ask("predict", place, "photos", "--json").out.splitlines()
    assert len(rows) == len(ask("predict", "image", "photos", "--json").out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image", "--forms", "onx"], "did you mean onnx"),
        (["image", "--data", "nosuch"], "no data are called"),
        (["image", "--out", "words.txt"], "is a file"),
        (["image", "--out", "photos"], "has files in it"),
        (["image", "--seconds", "0"], "not above 0"),
        (["image", "--at-least", "101"], "--at-least"),
        (["image", "--at-least", "nan"], "--at-least"),
        (["image", "--batch", "0"], "--batch"),
        (["text"], "takes text; images are deployed here"),
        (["image", "--set", "a=1"], "built as it was saved"),
        (["nosuch"], "nosuch"),
    ],
)
def test_mistakes(shop: Path, refused: Callable[..., str], arguments: list[str], says: str) -> None:
    assert says in refused("deploy", *arguments)
    assert not (shop / "deployed").exists()
