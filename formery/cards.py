"""Cards: the published facts of systems and rewrites, as data, read without importing torch or any system."""

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
BESIDE = ("rewrites",)
"""Packages of formery that keep the card of what they build beside it: a method, without variants."""


LISTED = "`formery list` has them all, with --modality those of images or texts alone"
"""What is said to a name that is like none."""
PREPROCESS: dict[str, Any] = {
    "size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bicubic",
    "crop_pct": 0.9, "num_classes": 1000, "fixed_input_size": False,
}  # fmt: skip
"""How images are prepared for ImageNet, unless a card says otherwise."""


@dataclass(frozen=True)
class Card:
    """What `NAME.toml` says of a system or a rewrite."""

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
        return dict(self.data.get("variants", {}))

    def preprocess(self, variant: str) -> dict[str, Any]:
        """How images are prepared for a variant: size, mean, std, interpolation, crop_pct (share of the shorter side).

        With them `num_classes`, and `fixed_input_size`: whether images of another size are refused, or resized inside.
        What the card says in `[preprocess]`, and a variant in its own `preprocess`; ImageNet's usual figures otherwise.
        """
        own: dict[str, Any] = self.variants.get(variant, {}).get("preprocess", {})
        return PREPROCESS | self.data.get("preprocess", {}) | own

    def modalities_of(self, variant: str) -> list[str]:
        """What goes into a variant: what the card says, unless the variant says it of itself."""
        return list(self.variants[variant].get("modalities", self.modalities))

    @property
    def claims(self) -> list[dict[str, Any]]:
        return list(self.data.get("claims", []))

    @property
    def model_types(self) -> list[str]:
        """The `model_type` of configs of transformers that the system's `from_config` reads."""
        return list(self.data.get("model_types", []))

    @property
    def package(self) -> str:
        """Where the card lies."""
        return f"formery.{self.group}" if self.group in BESIDE else f"formery.systems.{self.group}"

    @property
    def module(self) -> str:
        return f"{self.package}.{self.name}"


@cache
def cards() -> dict[str, Card]:
    """The cards of all systems, by name."""
    return {card.name: card for group in GROUPS for card in _read(f"formery.systems.{group}", group)}


@cache
def everything() -> dict[str, Card]:
    """The cards of all systems, then those of rewrites, by name."""
    return cards() | {card.name: card for group in BESIDE for card in _read(f"formery.{group}", group)}


def _read(package: str, group: str) -> Iterator[Card]:
    for entry in sorted(files(package).iterdir(), key=lambda e: e.name):
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
    hint = nearest(name, [*variants(), *aliases()], otherwise=LISTED)
    raise UnknownName(f"no model is called {name!r}; {hint}")


def card_of_variant(name: str) -> Card | None:
    """The card of a variant, or None for a name that is none."""
    return variants().get(name)


def card(name: str) -> Card:
    """The card of a system, a rewrite (or its paper) or a variant's system; UnknownName with the nearest names."""
    if name in everything():
        return everything()[name]
    for beside in everything().values():
        if beside.group in BESIDE and f"{beside.group.removesuffix('s')}.{name}" in beside.data["parts"]:
            return beside
    if name in variants() or name in aliases():
        return variants()[canonical(name)]
    raise UnknownName(
        f"no system or rewrite is called {name!r}; {nearest(name, [*everything(), *variants()], otherwise=LISTED)}"
    )


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
