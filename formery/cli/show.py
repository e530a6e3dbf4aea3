"""`formery show`: a part, a system and its card, a spec as a tree with the parameters of each node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..files import CONFIG
from .models import SPEC_SUFFIXES, changes_of, find, hollow_model
from .options import SET
from .output import JSON, console, emit, line, number, say, table

if TYPE_CHECKING:
    from ..cards import Card

CAPABILITIES = (
    "causal", "streams", "packs", "grids", "state_growth", "fixed_grid", "exports", "looks_at_batch", "reads", "writes",
    "acts_on", "over", "stride",
)  # fmt: skip
"""What a part's class may declare."""


def command(
    name: str = typer.Argument(help="A model, a saved model's folder, a spec file, a system, or a part (role.name)."),
    set_: list[str] = SET,
    card_only: bool = typer.Option(False, "--card", help="Show the system's card: published figures, claims."),
    yaml: bool = typer.Option(False, "--yaml", help="Print the resolved spec as YAML."),
    as_json: bool = JSON,
) -> None:
    """Show what a part, a system or a model is made of.

    Example: [bold]formery show poolformer_s12 --set body.stages.3.mixer=attention[/bold], [bold]formery show
    mixer.pooling[/bold], [bold]formery show metaformer[/bold]
    """
    from ..errors import BadSpec

    if sum((card_only, yaml, as_json)) > 1 and not (card_only and as_json):
        raise BadSpec("--card, --yaml and --json each ask for another form; give one of them")
    part = _part_of(name)
    card = None if part else _card_of(name, card_only)
    if (part or card) and (set_ or yaml):
        raise BadSpec(f"--set and --yaml go with models, {name} is a {'part' if part else 'system or method'}")
    if part:
        if card_only:
            raise BadSpec(f"parts have no card; leave --card out to see {name}")
        _show_part(*part, as_json)
    elif card:
        _show_card(card, as_json)
    else:
        _show_model(name, set_, yaml, as_json)


def _part_of(name: str) -> tuple[str, str] | None:
    """(role, name) where the text is written like a part's."""
    from ..registry import HOMES, UNIONS

    role, dot, part = name.partition(".")
    named = dot and (role in HOMES or role in UNIONS) and Path(name).suffix.lower() not in SPEC_SUFFIXES
    return (role, part) if named else None


def _card_of(name: str, wanted: bool) -> Card | None:
    """The card that a name calls for: a system's, or, `wanted`, the one of the system that a variant belongs to."""
    from .. import cards

    if wanted:
        return cards.card(name)
    folder = (Path(name) / CONFIG).is_file()
    return cards.everything()[name] if name in cards.everything() and not folder else None


# ------------------------------------------------------------------------------------------------ parts


def _show_part(role: str, name: str, as_json: bool) -> None:
    from ..registry import find as find_part
    from ..registry import index

    part = find_part(role, name)
    schema = _schema(part)
    can = {fact: getattr(part, fact) for fact in CAPABILITIES if hasattr(part, fact)}
    facts = {"role": role, "name": name, "says": _says(part), "capabilities": can, "options": schema}
    facts["target"] = index(role)[name]
    if as_json:
        emit(facts)
        return
    say(f"{role} {name}  ({facts['target']})\n{facts['says']}\n")
    if can:
        say("  ".join(f"{fact}: {_plain(value)}" for fact, value in can.items() if _plain(value)))
    table("", ["option", "type", "default"], [(s["option"], s["type"], _plain(s["default"])) for s in schema])


def _schema(part: Any) -> list[dict[str, Any]]:
    """The options of a part: those of a rewrite's decision, a class' constructor, or a function that opens data."""
    import inspect

    from ..spec import Option, options
    from .hints import described

    a_function = inspect.isfunction(part)
    if not a_function:
        found = options(getattr(part, "decide", part.__init__))
    else:
        parameters = inspect.signature(part).parameters.values()
        found = {p.name: Option(p.annotation, p.default, None) for p in parameters if p.kind is p.KEYWORD_ONLY}
    return [
        {
            "option": option,
            "type": described(entry.hint, entry.role),
            "default": "needed" if entry.required else entry.default,
            "role": entry.role,
        }
        for option, entry in found.items()
    ]


def _says(part: Any) -> str:
    """What a part says of itself; its module, where the class says no more than that."""
    import inspect

    text = inspect.getdoc(part) or ""
    if text.startswith("See the module"):
        text = inspect.getdoc(inspect.getmodule(part)) or ""
    return line(text)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


# ------------------------------------------------------------------------------------------------ cards


def _show_card(card: Card, as_json: bool) -> None:
    if as_json:
        emit({"system": card.name, **card.data})
        return
    data = card.data
    origin = [str(data["year"])] if "year" in data else []
    origin += [f"{what} {data[key]}" for key, what in (("arxiv", "arXiv"), ("code", "code")) if data.get(key)]
    say(f"{card.title}: {', '.join(origin)}" if origin else card.title)
    if "idea" in data:
        say(f"{line(str(data['idea']))}\n")
    if card.variants:
        columns = ["name", "params (counted)", "MACs (counted)", "published"]
        table("Variants", columns, [_variant(*item) for item in card.variants.items()], right=(1, 2))
    if card.claims:
        rows = [(c["id"], line(str(c["says"])), line(str(c.get("bar", "")))) for c in card.claims]
        table(f"Claims, checked by 'formery verify {card.name}'", ["id", "says", "bar"], rows)
    for note in data.get("notes", []):
        say(f"- {line(str(note))}")


def _variant(name: str, facts: dict[str, Any]) -> tuple[str, ...]:
    published = ", ".join(f"{key} {value}" for key, value in facts.get("published", {}).items())
    params = facts.get("params")
    return (name, "" if params is None else f"{params:,}", number(facts.get("macs")), published)


# ------------------------------------------------------------------------------------------------ models


def _show_model(name: str, pairs: list[str] | None, yaml: bool, as_json: bool) -> None:
    changes = changes_of(pairs)
    subject = find(name)
    model = hollow_model(subject, changes)
    if yaml:
        from ..formats import to_yaml

        print(to_yaml(model.resolved), end="")
        return
    from .tree import nodes, tree

    total = sum(parameter.numel() for parameter in model.parameters())
    variant = None if changes or subject.kind != "spec" or subject.read is not None else _variant_facts(name)
    if as_json:
        facts = {"name": model.name, "params": total, "plans": model.plans, "resolved": model.resolved}
        emit(facts | (variant or {}) | {"nodes": nodes(model)})
        return
    console().print(tree(model, total))
    if variant:
        counted = [] if variant["macs"] is None else [f"{number(variant['macs'])} MACs, counted"]
        published = ", ".join(f"{key} {value}" for key, value in variant["published"].items())
        counted += [f"published: {published}"] if published else []
        say("; ".join([*counted, f"its system: formery show {variant['system']}"]))


def _variant_facts(name: str) -> dict[str, Any]:
    """What the card says of a variant as it is published."""
    from .. import cards

    card = cards.card(name)
    facts = card.variants[cards.canonical(name)]
    return {"system": card.name, "macs": facts.get("macs"), "published": facts.get("published", {})}
