from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


def test_saved_named_specified_and_exported_models(exported: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    names = ["image", "image.yaml", "image.onnx", "decoder_tiny"]
    facts = ask("compare", *names, "--seconds", 0.05, "--json").json
    assert [row["name"] for row in facts["rows"]] == names
    assert facts["base"] == "image"
    assert facts["rows"][0]["ratio"] == 1
    assert all(row["timing"]["median"] > 0 for row in facts["rows"])
    assert facts["rows"][0]["of_products"] > 0


def test_a_table_for_people(exported: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    out = ask("compare", "text", "text.onnx", "--seconds", 0.05, "--size", 8, "--batch", 2).out
    assert "text.onnx" in out
    assert "1.00x" in out


@pytest.mark.usefixtures("shop")
def test_bf16(ask: Ask) -> None:
    assert ask("compare", "image", "image.yaml", "--bf16", "--seconds", 0.05).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["image"], "two or more"),
        (["image", "image"], "different"),
        (["image", "nosuch"], "no model is called"),
        (["image", "nosuch.onnx"], "does not exist"),
        (["image", "photos"], "no saved model"),
        (["image", "garbage.onnx"], "no ONNX model"),
        (["image", "zero.onnx"], "no ONNX model"),
        (["image", "image.onnx", "--bf16"], "--bf16"),
        (["image.yaml", "image.onnx", "--size", "16"], "no other size"),
        (["image", "text", "--seconds", "nan"], "no finite number"),
        (["image", "text", "--seconds", "0"], "not above 0"),
        (["image", "text", "--seconds", "-1"], "not above 0"),
        (["image", "text", "--batch", str(10**12)], "GiB"),
        ([], "missing argument"),
    ],
)
def test_mistakes(
    arguments: list[str], says: str, exported: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported)
    assert says in refused("compare", *arguments)
