"""Results kept on cards: `[claims.measured]` below the claim, the rest of the card untouched."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from .. import cards
from ..errors import Unwritable
from ..files import write_text

TABLE = re.compile(r"^\[", re.MULTILINE)
MEASURED = "[claims.measured]"
NUMBER = "{:.6g}"
"""Figures are kept to six digits."""


def record(results: Iterable[Mapping[str, Any]], *, today: date | None = None) -> list[Path]:
    """Write what was found of slow claims (passed or failed) below them; the cards that were written.

    The record says verdict, figures, date, seconds, torch and processor. Unwritable where the cards of this
    installation cannot be changed.
    """
    by_card: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if result["verdict"] in ("passed", "failed") and result["slow"]:
            by_card.setdefault(result["system"], []).append(result)
    written = []
    for name, found in by_card.items():
        path = _path(name)
        text = path.read_text(encoding="utf-8")
        for result in found:
            text = with_record(text, result["claim"], _facts(result, today or date.today()))
        write_text(path, text)
        written.append(path)
    cards.cards.cache_clear()
    cards.everything.cache_clear()
    cards.variants.cache_clear()
    return written


def _path(name: str) -> Path:
    card = cards.card(name)
    with as_file(files(card.package).joinpath(f"{card.name}.toml")) as path:
        if not path.is_file() or not path.is_relative_to(Path(__file__).parents[1]):
            raise Unwritable(f"the card of {name} is no file of this installation; work in a checkout of the source")
        return path


def _facts(result: Mapping[str, Any], today: date) -> dict[str, Any]:
    import torch

    from ..host import processor

    threads = torch.get_num_threads()
    facts = {key: result[key] for key in ("verdict", "said", "note", "value", "seconds") if result[key]}
    machine = f"{processor()}, {threads} thread{'' if threads == 1 else 's'}"
    return facts | {"date": today, "torch": torch.__version__, "machine": machine}


def with_record(text: str, claim: str, facts: Mapping[str, Any]) -> str:
    """The card's text with `facts` as the record of `claim`, in place of an earlier one."""
    starts = [match.start() for match in re.finditer(r"^\[\[claims\]\]$", text, re.MULTILINE)]
    before = tomllib.loads(text)
    index = next(i for i, entry in enumerate(before["claims"]) if entry["id"] == claim)
    start = starts[index]
    end = next((match.start() for match in TABLE.finditer(text, start + 1)), len(text))
    head = text[start:end].rstrip()
    if text[end:].startswith(MEASURED):
        end = next((match.start() for match in TABLE.finditer(text, end + 1)), len(text))
    lines = [head, "", MEASURED, *(f"{key} = {toml(value)}" for key, value in facts.items())]
    tail = text[end:]
    new = text[:start] + "\n".join(lines) + "\n" + (f"\n{tail}" if tail else "")
    _check(before, tomllib.loads(new), index)
    return new


def _check(before: dict[str, Any], after: dict[str, Any], index: int) -> None:
    """Nothing but the record of one claim has changed."""
    for card in (before, after):
        card["claims"][index].pop("measured", None)
    if before != after:
        raise Unwritable("the card is laid out in a way that a record cannot be added to; add it by hand")


def toml(value: Any) -> str:
    """A plain value as TOML has it, tables inline; what is None is left out."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        text = NUMBER.format(value)
        return text if re.search(r"[.enai]", text) else f"{text}.0"
    if isinstance(value, int | date):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        entries = (f"{_key(str(k))} = {toml(v)}" for k, v in value.items() if v is not None)
        return "{ " + ", ".join(entries) + " }"
    return "[" + ", ".join(toml(item) for item in value) + "]"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
