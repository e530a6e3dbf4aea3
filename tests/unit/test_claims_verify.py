"""Running claims, keeping their results on cards, and the command that does both."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formery import cards
from formery.claims import Measured, check, verify, verifying
from formery.claims.figures import agrees, number
from formery.claims.record import record, toml, with_record
from formery.cli.app import run
from formery.errors import MissingExtra, Unwritable

CARD = """title = "A toy"
modalities = ["image"]
parts = []

[variants]

[[claims]]
id = "holds"
says = "It holds."
source = "section 1"
bar = "> 0"
check = "toy:holds"

[[claims]]
id = "fails"
says = "It fails."
source = "section 2"
bar = "> 1"
check = "toy:fails"
slow = true

[[claims]]
id = "breaks"
says = "It breaks."
source = "section 3"
bar = "any"
check = "toy:breaks"

[[claims]]
id = "lacks"
says = "It lacks a library."
source = "section 4"
bar = "any"
check = "toy:lacks"
"""


def toy(seed: int, progress: Callable[[str], None]) -> Measured:
    progress("halfway")
    return Measured({"x": 1.5, "seed": seed}, True, "x is 1.5", "1.4")


def fails(seed: int, progress: Callable[[str], None]) -> Measured:
    return Measured({"x": 0.5}, False, "x is 0.5", note="too few steps")


def breaks(seed: int, progress: Callable[[str], None]) -> Measured:
    raise ZeroDivisionError("no")


def lacks(seed: int, progress: Callable[[str], None]) -> Measured:
    raise MissingExtra("timm is not installed; pip install 'formery[timm]'")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> cards.Card:
    """A system with four claims, in place of all others."""
    card = cards.Card("toy", "vision", tomllib.loads(CARD))
    checks = {"toy:holds": toy, "toy:fails": fails, "toy:breaks": breaks, "toy:lacks": lacks}
    monkeypatch.setattr(cards, "everything", lambda: {"toy": card})
    monkeypatch.setattr(verifying, "check_of", lambda claim: check(checks[claim["check"]]))
    return card


def test_results_say_everything(system: cards.Card) -> None:
    told: list[str] = []
    seen: list[Any] = []
    results = verify(slow=True, seed=3, progress=told.append, on_result=seen.append)
    assert seen == results
    assert [r["verdict"] for r in results] == ["passed", "failed", "broken", "not run"]
    holds, failed, broken, lacking = results
    assert holds["system"] == "toy"
    assert (holds["value"], holds["published"], holds["said"]) == ({"x": 1.5, "seed": 3}, "1.4", "x is 1.5")
    assert holds["seconds"] >= 0
    assert failed["note"] == "too few steps"
    assert broken["note"] == "ZeroDivisionError: no"
    assert "pip install" in lacking["note"]
    assert "toy holds: halfway" in told
    assert json.loads(json.dumps(results)) == results


def test_slow_claims_wait_to_be_asked_for(system: cards.Card) -> None:
    waiting = verify(claims=["fails"])[0]
    assert (waiting["verdict"], waiting["recorded"], waiting["slow"]) == ("not run", None, True)
    system.data["claims"][1]["measured"] = {"verdict": "failed", "said": "x is 0.4", "date": date(2026, 11, 20)}
    recorded = verify(claims=["fails"])[0]["recorded"]
    assert recorded == {"verdict": "failed", "said": "x is 0.4", "date": "2026-11-20"}


def test_a_check_leaves_the_generator_alone() -> None:
    import torch

    @check
    def draws(seed: int, progress: Callable[[str], None]) -> Measured:
        return Measured({"x": torch.rand(()).item()}, True, "")

    before = torch.random.get_rng_state()
    assert draws(seed=5).value == draws(seed=5).value != draws(seed=6).value
    assert torch.equal(torch.random.get_rng_state(), before)


# ------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize(
    ("text", "value", "last"), [("1.8G", 1.8e9, 1e8), ("11.9M", 11.9e6, 1e5), ("101G", 101e9, 1e9), ("77", 77, 1)]
)
def test_figures_as_papers_print_them(text: str, value: float, last: float) -> None:
    assert number(text) == pytest.approx((value, last))


def test_figures_agree_when_rounded_alike() -> None:
    assert agrees(1_812_267_008, "1.8G")
    assert agrees(11_915_176, "11.9M")
    assert not agrees(11_533_320_192, "11.6G")
    with pytest.raises(ValueError, match="no figure"):
        number("six")


# ------------------------------------------------------------------------------------------------ records

FACTS = {"verdict": "passed", "said": 'x is "1.5"', "value": {"x y": [1.5, 2], "b": True}, "date": date(2026, 11, 20)}


@pytest.mark.parametrize("claim", ["holds", "fails", "lacks"])
def test_a_record_changes_its_claim_alone(claim: str) -> None:
    once = with_record(CARD, claim, FACTS)
    found = tomllib.loads(once)
    (entry,) = [c for c in found["claims"] if c["id"] == claim]
    assert entry.pop("measured") == FACTS
    assert found == tomllib.loads(CARD)
    again = with_record(once, claim, FACTS | {"said": "x is 2"})
    assert tomllib.loads(again)["claims"] != tomllib.loads(once)["claims"]
    assert again.replace("x is 2", 'x is \\"1.5\\"') == once
    both = with_record(once, "breaks", FACTS)
    assert sum("measured" in c for c in tomllib.loads(both)["claims"]) == 2


def test_a_card_laid_out_otherwise_is_left_alone() -> None:
    inline = CARD.replace('id = "holds"', 'id = "holds"\nmore = """\n[[claims]]\n"""')
    with pytest.raises((Unwritable, tomllib.TOMLDecodeError)):
        with_record(inline, "lacks", FACTS)


PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(blacklist_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab c.é", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(PLAIN)
def test_plain_values_come_back_from_toml(value: Any) -> None:
    assert tomllib.loads(f"x = {toml(value)}")["x"] == value


@given(st.floats(allow_nan=False))
def test_figures_come_back_to_six_digits(value: float) -> None:
    found = tomllib.loads(f"x = {toml(value)}")["x"]
    assert isinstance(found, float)
    assert found == pytest.approx(value, rel=1e-5)


def test_results_are_recorded_on_the_card(system: cards.Card, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from formery.claims import record as module

    path = tmp_path / "toy.toml"
    path.write_text(CARD)
    monkeypatch.setattr(module, "_path", lambda name: path)
    for cached in ("cards", "variants"):
        monkeypatch.setattr(cards, cached, type("Cached", (), {"cache_clear": staticmethod(lambda: None)}))
    cards.everything.cache_clear = lambda: None  # type: ignore[attr-defined]
    results = verify(slow=True)
    assert record(results, today=date(2026, 11, 20)) == [path]
    kept = {c["id"]: c.get("measured") for c in tomllib.loads(path.read_text())["claims"]}
    assert kept["breaks"] is None
    assert kept["lacks"] is None
    assert kept["holds"] is None, "what takes seconds is measured, not remembered"
    assert kept["fails"]["value"] == {"x": 0.5}
    assert kept["fails"]["verdict"] == "failed"
    assert kept["fails"]["note"] == "too few steps"
    assert kept["fails"]["date"] == date(2026, 11, 20)
    assert kept["fails"]["machine"]


# ------------------------------------------------------------------------------------------------ command


def test_the_command_exits_by_what_it_found(system: cards.Card, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--claim", "holds"]) == 0
    out = capsys.readouterr().out
    assert "x is 1.5" in out
    assert "1.4" in out
    assert run(["verify", "--claim", "holds", "--claim", "fails"]) == 0
    out = capsys.readouterr().out
    assert "not run (--slow)" in out
    assert "1 passed, 1 not run" in out
    assert run(["verify", "toy", "--claim", "fails", "--slow"]) == 1
    assert "too few steps" in capsys.readouterr().out
    assert run(["verify", "--claim", "breaks"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "drop", "--claim", "llama-layer", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["value"] == {"parameters": 67_112_960}


def test_the_command_shows_records_of_slow_claims(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "240")  # no word is folded
    assert run(["verify", "metaformer", "--claim", "pooling-over-identity"]) == 0
    out = capsys.readouterr().out
    assert "not run (--slow)" in out
    assert "2026" in out


def test_the_command_names_what_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "metaformr"]) == 2
    assert "did you mean metaformer?" in capsys.readouterr().err
    assert run(["verify", "vit", "--claim", "ordr"]) == 2
    assert "did you mean order?" in capsys.readouterr().err
