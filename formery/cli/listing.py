"""`formery list`: models, and parts by role."""

from __future__ import annotations

from fnmatch import fnmatchcase

import typer

from .output import JSON, emit, number, table


def command(
    pattern: str = typer.Argument("*", help="A glob over names, e.g. 'poolformer_*'; or a role: mixers, norms, ..."),
    role: str = typer.Option("", "--role", "-r", help="List the parts of a role instead: mixer, channel, norm, stem, ..."),
    modality: str = typer.Option("", help="Only models of this modality: image, text."),
    causal: bool | None = typer.Option(None, "--causal/--not-causal", help="Only models whose tokens never see later ones."),
    streams: bool | None = typer.Option(None, "--streams/--not-streams", help="Only models that can be fed chunk by chunk."),
    as_json: bool = JSON,
) -> None:
    """List models by name and capability, or the parts of a role.

    Example: [bold]formery list 'convnext_*'[/bold], [bold]formery list --role mixer[/bold]
    """
    from ..registry import HOMES

    plural = {f"{name}s": name for name in HOMES} | {"bodies": "body", "merges": "merge"}
    if not role and pattern in {**plural, **HOMES}:
        role, pattern = plural.get(pattern, pattern), "*"
    if role:
        _parts(plural.get(role, role), pattern, as_json)
    else:
        _models(pattern, modality, causal, streams, as_json)


def _parts(role: str, pattern: str, as_json: bool) -> None:
    from ..registry import index
    from .sources import summary

    found = {name: target for name, target in index(role).items() if fnmatchcase(name, pattern)}
    _check(found, pattern, list(index(role)), role)
    rows = [{"name": name, "says": summary(target), "target": target} for name, target in found.items()]
    if as_json:
        emit(rows)
    else:
        table(f"{len(rows)} {role} parts", ["name", "what it is"], [(row["name"], row["says"]) for row in rows])


def _models(pattern: str, modality: str, causal: bool | None, streams: bool | None, as_json: bool) -> None:
    from .. import cards
    from ..create import list_models
    from ..errors import UnknownName
    from ..registry import nearest

    modalities = {m for card in cards.cards().values() for m in card.modalities}
    if modality and modality not in modalities:
        raise UnknownName(f"no modality is called {modality!r}; {nearest(modality, modalities)}")
    names = list_models(pattern, modality=modality or None, causal=causal, streams=streams)
    if not names and not (modality or causal is not None or streams is not None):
        _check(names, pattern, [*cards.variants(), *cards.aliases()], "model")
    rows = []
    for name in names:
        card = cards.variants()[name]
        facts = card.variants[name]
        rows.append(
            {
                "name": name,
                "system": card.name,
                "modality": "+".join(card.modalities),
                "params": facts.get("params"),
                "macs": facts.get("macs"),
                "causal": bool(facts.get("causal")),
                "streams": bool(facts.get("streams")),
                "published": facts.get("published", {}),
                "aliases": facts.get("aliases", []),
            }
        )
    if as_json:
        emit(rows)
        return
    cells = [
        (
            r["name"], r["system"], r["modality"], number(r["params"]), number(r["macs"]),
            ", ".join(word for word in ("causal", "streams") if r[word]),
            ", ".join(f"{k} {v}" for k, v in r["published"].items()),
        )
        for r in rows
    ]  # fmt: skip
    columns = ["name", "system", "modality", "params", "MACs", "can", "published"]
    table(f"{len(rows)} models", columns, cells, right=(3, 4))


def _check(found: object, pattern: str, names: list[str], what: str) -> None:
    from ..errors import UnknownName
    from ..registry import nearest

    if not found:
        raise UnknownName(f"no {what} matches {pattern!r}; {nearest(pattern, names)}")
