"""`formery probe` and `formery characterize`, as people call them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from formery.cli.app import run
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]

# The package gives the function of this name.
growth = import_module("formery.measure.characterize")

SMALL = ["--steps", 4, "--width", 16, "--batch", 4, "--set", "sizes=[2]", "--set", "trained=[2]", "--set", "vocab=16"]


def test_a_probe_writes_what_it_found(ask: Ask, tmp_path: Path) -> None:
    arguments = ["probe", "mqar", "attention", "gated_deltanet", *SMALL, "--out", tmp_path / "run"]
    answer = ask(*arguments)
    assert "chance" in answer.out
    found = json.loads((tmp_path / "run" / "probe.json").read_text())
    assert [row["name"] for row in found["models"]] == ["attention", "gated_deltanet"]
    assert (tmp_path / "run" / "probe.png").stat().st_size > 1000
    assert ask(*arguments, "--json").json == found, "what is done is not done again"


def test_what_another_probe_left_is_refused(ask: Ask, refused: Callable[..., str], tmp_path: Path) -> None:
    arguments = ["probe", "mqar", "attention", *SMALL, "--out", tmp_path]
    ask(*arguments)
    assert "rope" in refused(*arguments, "--rope")
    assert "steps" in refused(*arguments, "--steps", 5)
    assert "vocab" in refused(*arguments, "--set", "vocab=32")


def entries(out: Path) -> list[Path]:
    return sorted(path for path in (out / "work" / "journal").iterdir() if path.stem != "identity")


def test_a_layout_of_another_size_is_trained_anew(ask: Ask, tmp_path: Path) -> None:
    def attention(*others: str) -> dict[str, Any]:
        return ask("probe", "mqar", "attention", *others, *SMALL, "--out", tmp_path, "--json").json["models"][0]

    alone = attention()
    assert len(entries(tmp_path)) == 1
    widened = attention("mamba2")
    assert widened["parameters"] > alone["parameters"], "or nothing is tried here"
    assert len(entries(tmp_path)) == 3
    assert widened["trials"] != alone["trials"]
    assert attention() == alone
    assert len(entries(tmp_path)) == 3


def test_long_layouts_are_kept(ask: Ask, tmp_path: Path) -> None:
    ask("probe", "mqar", " ".join(["attention"] * 30), *SMALL, "--out", tmp_path)
    (entry,) = entries(tmp_path)
    assert entry.name.startswith("attention_attention")


@pytest.mark.parametrize(
    "left", ['{"seed": 0, "accu', "null", '{"seed": 0, "accuracy": {}}', '{"accuracy": {"2": null}}']
)
def test_a_damaged_entry_is_made_again(ask: Ask, tmp_path: Path, left: str) -> None:
    arguments = ["probe", "mqar", "attention", *SMALL, "--out", tmp_path, "--json"]
    before = ask(*arguments).json["models"][0]["accuracy"]
    (entry,) = entries(tmp_path)
    entry.write_text(left)
    again = ask(*arguments)
    assert "trained again" in again.err
    assert again.json["models"][0]["accuracy"] == before
    assert "trained again" not in ask(*arguments).err


@pytest.mark.parametrize("left", ['{"mine": 1}', "[1]", "notes", None])
def test_what_is_not_a_probes_stays(refused: Callable[..., str], tmp_path: Path, left: str | None) -> None:
    path = tmp_path / "probe.json"
    path.mkdir() if left is None else path.write_text(left)
    assert "not of a probe" in refused("probe", "mqar", "attention", *SMALL, "--out", tmp_path)
    assert list(tmp_path.iterdir()) == [path], "nothing is begun there"
    assert left is None or path.read_text() == left


def test_growth_is_told(ask: Ask, tmp_path: Path) -> None:
    arguments = ["characterize", "decoder_tiny", "--context", "16:32", "--seconds", 0.01, "--out", tmp_path / "run"]
    report = ask(*arguments, "--json").json
    assert [point["tokens"] for point in report["models"][0]["points"]] == [16, 32]
    assert (tmp_path / "run" / "characterize.png").is_file()
    assert "growth exponents" in ask(*arguments[:-2]).out


def test_growth_needs_a_place_to_write_before_it_measures(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "characterize", lambda *_, **__: pytest.fail("measured before looking at --out"))
    (tmp_path / "file").touch()
    (tmp_path / "run" / "characterize.png").mkdir(parents=True)
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "run"):
        assert "--out" in refused("characterize", "decoder_tiny", "--context", "16:32", "--out", out)


@pytest.mark.parametrize("ended", [KeyboardInterrupt, MemoryError])
def test_growth_that_is_interrupted_keeps_what_is_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: type[BaseException]
) -> None:
    real = growth._point

    def point(model: Any, length: int, seconds: float) -> Any:
        if model.name == "mamba2_tiny" and length > 16:
            raise ended
        return real(model, length, seconds)

    monkeypatch.setattr(growth, "_point", point)
    arguments = ["characterize", "decoder_tiny", "mamba2_tiny", "--context", "16:64", "--seconds", "0.01"]
    with nullcontext() if ended is KeyboardInterrupt else suppress(ended):
        assert run([*arguments, "--out", str(tmp_path / "run")]) != 0
    found = json.loads((tmp_path / "run" / "characterize.json").read_text())
    measured = {row["name"]: [point["tokens"] for point in row["points"]] for row in found["models"]}
    assert measured == {"decoder_tiny": [16, 32, 64], "mamba2_tiny": [16]}
    said = capsys.readouterr().out
    assert "mamba2_tiny: growth exponents prefill -, decode -, state_bytes -" in said
    assert "stopped: nothing beyond 16 tokens was measured" in said
    assert (tmp_path / "run" / "characterize.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["probe", "mqr", "attention"], "mqar"),
        (["probe", "mqar", "atention"], "attention"),
        (["probe", "mqar", "attention", "--set", "voca=3"], "vocab"),
        (["probe", "mqar", "attention", "--set", "power=0"], "mqar.power"),
        (["probe", "phonebook", "attention", "--set", "digits=0"], "phonebook.digits"),
        (["probe", "phonebook", "attention", "--set", "mode=x"], "'standard' or 'reversed'"),
        (["probe", "copy", "attention", "--set", "vocab=0"], "copy.vocab"),
        (["probe", "selective_copy", "attention", "--set", "remembered=0"], "selective_copy.remembered"),
        (["probe", "digits_pixels", "attention", "--set", "sizes=[12]"], "multiple of 8"),
        (["probe", "parity", "attention", "--set", "sizes=9"], "parity.sizes"),
        (["probe", "mqar", "attention", "--set", "sizes=abc"], "mqar.sizes"),
        (["probe", "mqar", "attention", "--set", "sizes=[]"], "mqar.sizes"),
        (["probe", "mqar", "attention", "--set", "sizes=[a]"], "mqar.sizes"),
        (["probe", "mqar", "attention", "--set", "vocab=abc"], "mqar.vocab"),
        (["probe", "mqar", "attention", "--set", "fillers=abc"], "mqar.fillers"),
        (["probe", "phonebook", "attention", "--set", "digits=abc"], "phonebook.digits"),
        (["probe", "needle", "attention", "--set", "depth=abc"], "needle.depth"),
        (["probe", "permutations", "attention", "--set", "things=2.5"], "permutations.things"),
        (["probe", "permutations", "attention", "--set", "things=9"], "2 to 5"),
        (["probe", "mqar", "attention", "attention"], "once"),
        (["probe", "mqar", "pooling", *SMALL], "pooling"),
        (["characterize", "decoder_tiny", "--context", "9:3"], "512:65536"),
        (["characterize", "decoder_tiny", "--context", "x"], "512:65536"),
        (["characterize", "vit_tiny"], "does not stream"),
        (["characterize", "decoder_tiny", "--device", "tpu9"], "--device"),
    ],
)
def test_mistakes_are_one_line(refused: Callable[..., str], arguments: list[object], says: str) -> None:
    assert says in refused(*arguments)
