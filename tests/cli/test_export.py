from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from formery.runtime.onnx_model import OnnxModel
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


def test_what_is_said_and_what_is_written(exported: Path) -> None:
    for name in ("image", "text"):
        model = OnnxModel(exported / f"{name}.onnx")
        assert model.facts["formery"]
        assert model.facts["task"]["kind"] == ("classify" if name == "image" else "language")
    assert list(exported.glob(".*.tmp")) == []


@pytest.mark.usefixtures("traced")
def test_int8_is_written_within_the_bound_only(
    exported: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported)
    arguments = ["export", "image", "--out", tmp_path / "a.onnx", "--int8", tmp_path / "b.onnx", "--data", "digits"]
    report = ask(*arguments, "--max-drop", 100, "--json").json
    assert report["int8"]["shipped"] is True
    assert report["int8"]["bytes"] == (tmp_path / "b.onnx").stat().st_size
    assert report["int8"]["points_lost"] == pytest.approx(
        100 * (report["int8"]["before"] - report["int8"]["score"]), abs=1e-9
    )
    assert OnnxModel(tmp_path / "b.onnx")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    (tmp_path / "b.onnx").unlink()

    monkeypatch.setattr("formery.tasks.task.Task.points_lost", lambda *_: 3.0)
    answer = ask(*arguments, "--max-drop", 2.9)
    assert "NOT written" in answer.out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image", "--out", "model.txt"], ".onnx"),
        (["image", "--out", ""], ".onnx"),
        (["image", "--out", "words.txt/model.onnx"], "is a file"),
        (["image", "--out", "/proc/nosuch/model.onnx"], "cannot write"),
        (["image", "--int8", "a.onnx"], "--data"),
        (["image", "--data", "digits"], "--int8"),
        (["image", "--int8", "model.onnx", "--data", "digits"], "two files"),
        (["image", "--int8", "a.bin", "--data", "digits"], "--int8"),
        (["image", "--int8", "a.onnx", "--data", "nosuch"], "no data are called"),
        (["image", "--int8", "a.onnx", "--data", ""], "--data"),
        (["image", "--tolerance", "nan"], "no finite number"),
        (["image", "--tolerance", "0"], "not above 0"),
        (["image", "--max-drop", "inf"], "no finite number"),
        (["image", "--max-drop", "-1"], "--max-drop"),
        (["image", "--set", "head.num_classes=3"], "as it was saved"),
        (["text", "--any-size"], "images"),
        (["nosuch"], "no model is called"),
        (["garbage.onnx"], "exported model"),
        (["photos"], "no saved model"),
        (["vit_tiny", "--set", "head.num_classes=x"], "valid integer"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, refused: Callable[..., str]) -> None:
    assert says in refused("export", *arguments)


@pytest.mark.usefixtures("traced")
def test_a_model_that_does_not_survive_is_not_written(
    exported: Path, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported)

    def wrong(self: OnnxModel, inputs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(inputs), 10)

    monkeypatch.setattr(OnnxModel, "forward", wrong)
    assert "differs by" in refused("export", "image", "--out", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "image", "--out", "nosuch.onnx"],
        ["predict", "garbage.onnx", "photos"],
        ["compare", "image", "garbage.onnx"],
    ],
)
@pytest.mark.usefixtures("shop")
def test_without_the_extra_the_pip_line_is_said(
    arguments: list[str], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'formery[export]'" in refused(*arguments)
