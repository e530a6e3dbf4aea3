from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import formery
from tests.cli.conftest import Answer, pictures

Ask = Callable[..., Answer]


@pytest.mark.usefixtures("shop")
def test_drop_and_fold_are_written_and_reported(ask: Ask, tmp_path: Path) -> None:
    out = tmp_path / "smaller"
    facts = ask("shrink", "image", "--drop", 1, "--data", "digits", "--max-drop", 100, "--out", out, "--json").json
    assert [report["rewrite"] for report in facts["rewrites"]] == ["drop", "fold"]
    assert facts["points_lost"] == pytest.approx(100 * (facts["before"] - facts["after"]), abs=1e-9)
    before, after = formery.Model.from_pretrained("image/model"), formery.Model.from_pretrained(out)
    count = [sum(p.numel() for p in model.parameters()) for model in (before, after)]
    assert count[1] < count[0]
    assert facts["rewrites"][0]["parameters"] == {"before": count[0], "after": count[1]}
    assert after.extra == before.extra
    assert ask("predict", out, "photos").code == 0


@pytest.mark.usefixtures("shop")
def test_without_out_nothing_is_written(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ask("shrink", made / "image", "--drop", 1, "--data", "digits")
    assert "nothing is written" in answer.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("shop")
def test_a_fold_alone_needs_no_data(ask: Ask, tmp_path: Path) -> None:
    facts = ask("shrink", "image", "--out", tmp_path / "folded", "--json").json
    assert [report["rewrite"] for report in facts["rewrites"]] == ["fold"]
    assert "metric" not in facts


@pytest.mark.usefixtures("shop")
def test_texts(ask: Ask) -> None:
    facts = ask("shrink", "text", "--drop", 1, "--unit", "mixer", "--data", "words.txt", "--json").json
    assert facts["metric"] == "bits_per_byte"
    assert facts["points_lost"] == pytest.approx(100 * (facts["after"] - facts["before"]), abs=1e-9)


@pytest.mark.usefixtures("shop")
def test_the_bound_is_kept(refused: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "smaller"
    line = refused("shrink", "image", "--drop", 3, "--data", "digits", "--max-drop", 0.1, "--out", out)
    assert "more than 0.1" in line
    assert not out.exists()


@pytest.mark.usefixtures("shop")
def test_what_costs_much_is_written_when_asked_for_only(
    ask: Ask, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from formery.runtime import shrinking

    real = shrinking.shrink
    monkeypatch.setattr(shrinking, "shrink", lambda *a, **k: real(*a, **k) | {"points_lost": 55.5})
    given = ["shrink", "image", "--drop", 1, "--data", "digits"]
    line = refused(*given, "--out", tmp_path / "small")
    assert "falls by 55.50 points, more than 2, so nothing is written" in line
    assert "--max-drop 56" in line
    assert not (tmp_path / "small").exists()
    assert "nothing is written" in ask(*given).out
    assert ask(*given, "--max-drop", 56, "--out", tmp_path / "small").code == 0
    assert (tmp_path / "small" / "config.json").exists()


@pytest.mark.usefixtures("shop")
def test_a_full_disk(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def full(*_: object, **__: object) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert "No space left" in refused("shrink", "image", "--out", tmp_path / "small")
    training = ["train", "image.yaml", "digits", "--steps", "1", "--out", tmp_path / "run"]
    assert "No space left" in refused(*training)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vit_tiny"], "no weights to keep"),
        (["image.yaml"], "no weights to keep"),
        (["photos"], "no saved model"),
        (["nosuch"], "no model is called"),
        (["image", "--unit", "nosuch"], "--unit"),
        (["image", "--drop", "1"], "give --data"),
        (["image", "--max-drop", "1"], "give --data"),
        (["image", "--drop", "-1", "--data", "digits"], "--drop"),
        (["image", "--drop", "100", "--data", "digits"], "at most"),
        (["image", "--max-drop", "nan", "--data", "digits"], "--max-drop"),
        (["image", "--no-fold"], "nothing to do"),
        (["image", "--drop", "1", "--data", "nosuch"], "no data are called"),
        (["image", "--drop", "1", "--data", "words.txt"], "text data"),
        (["text", "--drop", "1", "--data", "digits"], "image data"),
        (["image", "--drop", "1", "--data", "textures"], "images of 3x"),
        (["image", "--drop", "1", "--data", "photos"], "one class only"),
        (["image", "--drop", "1", "--data", "empty"], "empty"),
        (["image", "--drop", "1", "--data", "digits", "--out", "words.txt"], "is a file"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, refused: Callable[..., str]) -> None:
    assert says in refused("shrink", *arguments)


def test_data_of_other_classes(shop: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    pictures(tmp_path / "data", ("cat", "dog"), 6)
    assert shop.is_dir()
    assert "other classes" in refused("shrink", "image", "--drop", "1", "--data", tmp_path / "data")
