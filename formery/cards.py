"""Cards: the published facts of systems, as data, read without importing torch or any system."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from .errors import BadSpec, UnknownName
from .registry import nearest

GROUPS = ("vision", "language")
"""Folders of `formery.systems`."""


@dataclass(frozen=True)
class Card:
    """One system's card: what `NAME.toml` says."""

    name: str
    group: str
    data: dict[str, Any] = field(repr=False)

    @property
    def title(self) -> str:
        return str(self.data["title"])

    @property
    def modalities(self) -> list[str]:
        return list(self.data["modalities"])

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """Published sizes by canonical name: params, macs, causal, streams, published figures, aliases."""
        return dict(self.data["variants"])

    @property
    def claims(self) -> list[dict[str, Any]]:
        return list(self.data.get("claims", []))

    @property
    def model_types(self) -> list[str]:
        """The `model_type` of configs of transformers that the system's `from_config` reads."""
        return list(self.data.get("model_types", []))

    @property
    def module(self) -> str:
        return f"formery.systems.{self.group}.{self.name}"


@cache
def cards() -> dict[str, Card]:
    """All cards by the system's name."""
    return {card.name: card for card in _read()}


def _read() -> Iterator[Card]:
    for group in GROUPS:
        for entry in sorted(files("formery.systems").joinpath(group).iterdir(), key=lambda e: e.name):
            if entry.name.endswith(".toml"):
                yield Card(entry.name.removesuffix(".toml"), group, tomllib.loads(entry.read_text(encoding="utf-8")))


@cache
def variants() -> dict[str, Card]:
    """Canonical variant names and the card each stands on."""
    return {variant: card for card in cards().values() for variant in card.variants}


@cache
def aliases() -> dict[str, str]:
    """Other people's full names (timm's, the authors', transformers') and the canonical name each stands for."""
    return {
        alias: name
        for card in cards().values()
        for name, facts in card.variants.items()
        for alias in facts.get("aliases", [])
    }


def canonical(name: str) -> str:
    """The canonical name of a variant or alias (a timm tag after a dot is dropped); UnknownName with the nearest."""
    for candidate in (name, name.partition(".")[0]):
        if candidate in variants():
            return candidate
        if candidate in aliases():
            return aliases()[candidate]
    raise UnknownName(f"no model is called {name!r}; {nearest(name, [*variants(), *aliases()])}")


def card_of_variant(name: str) -> Card | None:
    """The card of a variant, or None for a name that is none."""
    return variants().get(name)


def card(name: str) -> Card:
    """The card of a system, or of the system that a variant belongs to; UnknownName with the nearest names."""
    if name in cards():
        return cards()[name]
    if name in variants() or name in aliases():
        return variants()[canonical(name)]
    raise UnknownName(f"no system is called {name!r}; {nearest(name, [*cards(), *variants()])}")


def module_of(card: Card) -> Any:
    """The system's module: specs of its variants, dialects of its weights."""
    return import_module(card.module)


def spec_of(name: str) -> dict[str, Any]:
    """The spec of a variant, with its canonical name inside."""
    name = canonical(name)
    return {"name": name, **module_of(variants()[name]).variant(name)}


def of_config(config: Any) -> Card:
    """The card of the system that reads a config of transformers; UnknownName with the model types that are read."""
    readers = {kind: card for card in cards().values() for kind in card.model_types}
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise UnknownName("the config names no model_type, so it is none of transformers' models")
    if kind not in readers:
        raise UnknownName(f"no system here reads a config of model_type {kind!r}; {nearest(kind, readers)}")
    return readers[kind]


def spec_of_config(config: Any) -> dict[str, Any]:
    """The spec that a config of transformers describes; BadSpec where an entry is missing or has no part here."""
    card = of_config(config)
    try:
        described: dict[str, Any] = module_of(card).from_config(config)
    except KeyError as error:
        raise BadSpec(f"this config of a {config['model_type']} lacks {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadSpec(f"this config of a {config['model_type']} has an entry of the wrong type: {error}") from None
    return {"name": card.name, **described}
