"""Every claim on every card has a check, a bar and, where it is slow, a record."""

from __future__ import annotations

import inspect
import subprocess
import sys
from datetime import date
from typing import Any

import pytest

from formery import cards
from formery.cards import Card
from formery.claims.verifying import check_of, chosen
from formery.errors import UnknownName

CLAIMS = chosen()
IDS = [f"{card.name}:{claim['id']}" for card, claim in CLAIMS]


@pytest.mark.parametrize(("card", "claim"), CLAIMS, ids=IDS)
def test_a_claim_is_whole(card: Card, claim: dict[str, Any]) -> None:
    assert set(claim) <= {"id", "says", "source", "bar", "check", "slow", "measured"}
    assert all(isinstance(claim[key], str) and claim[key].strip() for key in ("id", "says", "source", "bar", "check"))
    assert claim["check"].startswith(f"formery.claims.{card.name}:")
    function = check_of(claim)
    assert callable(function)
    assert function.__doc__, "a check says what it does"
    assert claim.get("slow", True) is True


@pytest.mark.parametrize(("card", "claim"), CLAIMS, ids=IDS)
def test_a_record_of_a_slow_claim_is_whole(card: Card, claim: dict[str, Any]) -> None:
    if "slow" not in claim:
        assert "measured" not in claim, "what takes seconds is measured, not remembered"
        return
    record = claim.get("measured")
    assert record is not None, "run it: formery verify NAME --slow --save"
    assert record["verdict"] in ("passed", "failed")
    assert isinstance(record["date"], date)
    assert all(record[key] for key in ("said", "value", "seconds", "torch", "machine"))
    assert record["verdict"] == "passed" or record["note"], "a failure is explained"


def test_every_card_claims_something() -> None:
    for card in cards.everything().values():
        assert card.claims, card.name
        ids = [claim["id"] for claim in card.claims]
        assert len(ids) == len(set(ids)), card.name
    assert all("figures" in [claim["id"] for claim in card.claims] for card in cards.cards().values())


def test_no_check_is_left_without_a_claim() -> None:
    """A check that no card names would never run."""
    from importlib import import_module

    named = {claim["check"] for _, claim in CLAIMS}
    for name in cards.everything():
        module = import_module(f"formery.claims.{name}")
        assert {f"{module.__name__}:{n}" for n, f in vars(module).items() if is_check(f)} <= named


def is_check(function: Any) -> bool:
    inner = getattr(function, "__wrapped__", None)
    return inner is not None and list(inspect.signature(inner).parameters) == ["seed", "progress"]


def test_cards_of_rewrites_are_found_by_paper_and_by_rewrite() -> None:
    assert cards.card("fold") is cards.card("pre_rmsnorm")
    assert cards.card("drop") is cards.card("llm_drop")
    assert cards.card("fold").variants == {}
    assert "pre_rmsnorm" not in cards.cards()
    with pytest.raises(UnknownName, match="did you mean llm_drop"):
        cards.card("llm_dropp")


def test_variants_stand_for_their_system() -> None:
    assert {card.name for card, _ in chosen(["poolformer_s12", "timm/poolformer_s24"])} == {"metaformer"}
    assert [claim["id"] for _, claim in chosen(["vit"], ["order"])] == ["order"]
    with pytest.raises(UnknownName, match="did you mean order"):
        chosen(["vit"], ["ordr"])


def test_claims_are_listed_without_torch() -> None:
    code = "import sys; from formery.claims.verifying import chosen; chosen(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
