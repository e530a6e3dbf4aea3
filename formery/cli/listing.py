"""`formery list`: models, and parts by role."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import typer

from .output import JSON, counted, emit, number, table

PLURALS = {"bodies": "body"}


def command(
    pattern: str = typer.Argument(
        "*",
        help="A glob over names ('poolformer_*'), their beginning ('poolformer'), a system ('metaformer'), or a role "
        "('mixers', 'norms', ...).",
    ),
    role: str = typer.Option(
        "", "--role", "-r", help="List the parts of a role instead: mixer, channel, norm, stem, ..."
    ),
    modality: str = typer.Option("", help="Only models of this modality: image, video, text, series."),
    causal: bool | None = typer.Option(
        None, "--causal/--not-causal", help="Only models whose tokens never see later ones."
    ),
    streams: bool | None = typer.Option(
        None, "--streams/--not-streams", help="Only models that can be fed chunk by chunk."
    ),
    as_json: bool = JSON,
) -> None:
    """List models by name and capability, or the parts of a role.

    Example: [bold]formery list 'convnext_*'[/bold], [bold]formery list --role mixer[/bold]
    """
    from ..errors import BadSpec
    from ..registry import HOMES

    plural = {f"{name}s": name for name in HOMES} | PLURALS
    if not role and pattern in {**plural, **HOMES}:
        role, pattern = plural.get(pattern, pattern), "*"
    if not role:
        _models(pattern, modality, {"causal": causal, "streams": streams}, as_json)
    elif modality or causal is not None or streams is not None:
        raise BadSpec("--modality, --causal and --streams choose among models, not among parts; leave them out")
    else:
        _parts(plural.get(role, role), pattern, as_json)


def _parts(role: str, pattern: str, as_json: bool) -> None:
    from ..registry import index
    from .sources import summary

    found = {name: target for name, target in index(role).items() if fnmatchcase(name, pattern)}
    _check(found, pattern, index(role), role)
    rows = [{"name": name, "says": summary(target), "target": target} for name, target in found.items()]
    if as_json:
        emit(rows)
    else:
        table(counted(len(rows), f"{role} part"), ["name", "what it is"], [(row["name"], row["says"]) for row in rows])


def _models(pattern: str, modality: str, wanted: dict[str, bool | None], as_json: bool) -> None:
    from .. import cards
    from ..errors import UnknownName
    from ..registry import nearest

    modalities = {m for card in cards.cards().values() for m in card.modalities}
    if modality and modality not in modalities:
        raise UnknownName(f"no modality is called {modality!r}; {nearest(modality, modalities)}")
    everything = [_row(name) for name in sorted(cards.variants())]
    matching = [row for row in everything if _matches(row, pattern)]
    matching = matching or [row for row in everything if _matches(row, f"{pattern}_*")]  # a family's name
    _check(matching, pattern, [*cards.cards(), *cards.variants(), *cards.aliases()], "model", cards.LISTED)
    rows = [
        row for row in matching
        if (not modality or modality in row["modalities"])
        and all(row[fact] is wish for fact, wish in wanted.items() if wish is not None)
    ]  # fmt: skip
    if as_json:
        emit(rows)
        return
    columns = ["name", "system", "modality", "params", "MACs", "can", "published"]
    table(counted(len(rows), "model"), columns, map(_cells, rows), right=(3, 4))


def _row(name: str) -> dict[str, Any]:
    """What the card says of a variant."""
    from .. import cards

    card = cards.variants()[name]
    facts = card.variants[name]
    return {
        "name": name,
        "system": card.name,
        "modalities": card.modalities_of(name),
        "params": facts.get("params"),
        "macs": facts.get("macs"),
        "causal": bool(facts.get("causal")),
        "streams": bool(facts.get("streams")),
        "published": facts.get("published", {}),
        "aliases": facts.get("aliases", []),
    }


def _matches(row: dict[str, Any], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (row["name"], row["system"], *row["aliases"]))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    can = ", ".join(word for word in ("causal", "streams") if row[word])
    published = ", ".join(f"{name} {value}" for name, value in row["published"].items())
    modality = "+".join(row["modalities"])
    return (row["name"], row["system"], modality, number(row["params"]), number(row["macs"]), can, published)


def _check(found: object, pattern: str, names: Iterable[str], what: str, otherwise: str = "") -> None:
    from ..errors import UnknownName
    from ..registry import nearest

    if not found:
        raise UnknownName(f"no {what} matches {pattern!r}; {nearest(pattern, names, otherwise=otherwise)}")
