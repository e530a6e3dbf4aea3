"""Cards: the published facts of systems, as data, read without importing torch or any system."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from .errors import UnknownName
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
