"""`formery probe` and `formery characterize`, as people call them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer

Ask = Callable[..., Answer]

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


def test_growth_is_told(ask: Ask, tmp_path: Path) -> None:
    arguments = ["characterize", "decoder_tiny", "--context", "16:32", "--seconds", 0.01, "--out", tmp_path / "run"]
    report = ask(*arguments, "--json").json
    assert [point["tokens"] for point in report["models"][0]["points"]] == [16, 32]
    assert (tmp_path / "run" / "characterize.png").is_file()
    assert "growth exponents" in ask(*arguments[:-2]).out


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
