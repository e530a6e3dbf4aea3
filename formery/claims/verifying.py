"""Running the claims of cards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Literal

from .. import cards
from ..cards import Card
from ..errors import MissingExtra, UnknownName
from ..registry import nearest
from .check import Check, Progress

Verdict = Literal["passed", "failed", "broken", "not run"]
"""`broken`: the check itself ended with an error, which says nothing for or against the claim."""

Result = dict[str, Any]
"""system, claim, says, source, bar, slow, verdict, said, value, published, note, seconds, recorded: plain JSON."""


def verify(
    names: Iterable[str] = (),
    slow: bool = False,
    *,
    claims: Iterable[str] = (),
    seed: int = 0,
    on_result: Callable[[Result], None] | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Check the claims of systems (by system, variant or rewrite; all where none is named), one after another.

    Slow claims are checked where `slow` says so; otherwise they are listed as not run, with the result that the card
    records. `claims` restricts to these ids. Every result is handed to `on_result` when it is there, and all are
    returned. UnknownName for a name or an id that there is not.
    """
    results = []
    for card, claim in chosen(names, claims):
        result = _run(card, claim, slow, seed, _named(card, claim, progress))
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def chosen(names: Iterable[str] = (), ids: Iterable[str] = ()) -> list[tuple[Card, dict[str, Any]]]:
    """(card, claim) of every claim asked for, in the order of names and cards."""
    found = [cards.card(name) for name in names] or list(cards.everything().values())
    pairs = [(card, claim) for card in {c.name: c for c in found}.values() for claim in card.claims]
    wanted = list(ids)
    known = {claim["id"] for _, claim in pairs}
    for name in wanted:
        if name not in known:
            raise UnknownName(f"no claim is called {name!r} on these cards; {nearest(name, known)}")
    return [(card, claim) for card, claim in pairs if not wanted or claim["id"] in wanted]


def check_of(claim: dict[str, Any]) -> Check:
    """The function that a claim's `check` names."""
    module, _, name = claim["check"].partition(":")
    function: Check = getattr(import_module(module), name)
    return function


def _named(card: Card, claim: dict[str, Any], progress: Progress | None) -> Progress:
    """`progress` with the claim in front of what it is told."""

    def tell(text: str) -> None:
        if progress is not None:
            progress(f"{card.name} {claim['id']}: {text}" if text else f"{card.name} {claim['id']}")

    return tell


def _run(card: Card, claim: dict[str, Any], slow: bool, seed: int, progress: Progress) -> Result:
    result: Result = {
        "system": card.name,
        "claim": claim["id"],
        **{key: " ".join(claim[key].split()) for key in ("says", "source", "bar")},
        "slow": bool(claim.get("slow", False)),
        "verdict": "not run",
        "said": "",
        "value": None,
        "published": "",
        "note": "",
        "seconds": None,
        "recorded": _plain(claim.get("measured")),
    }
    if result["slow"] and not slow:
        return result | {"note": "takes minutes; run it with --slow"}
    progress("")
    try:
        measured = check_of(claim)(seed=seed, progress=progress)
    except MissingExtra as error:
        return result | {"note": str(error)}
    except Exception as error:  # one broken check must not hide what the others find
        return result | {"verdict": "broken", "note": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return result | {
        "verdict": "passed" if measured.passed else "failed",
        "said": measured.said,
        "value": measured.value,
        "published": measured.published,
        "note": measured.note,
        "seconds": round(measured.seconds, 2),
    }


def _plain(recorded: dict[str, Any] | None) -> dict[str, Any] | None:
    """A record with its date as text."""
    return None if recorded is None else recorded | {"date": str(recorded["date"])}
