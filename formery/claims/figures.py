"""Counted parameters and multiply-accumulates of a card's variants, beside the published ones."""

from __future__ import annotations

import re
from typing import Any

import torch

from .. import cards
from ..create import create_model
from ..measure import count_macs, count_parameters
from .check import Measured, Progress

UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
PUBLISHED_MACS = ("macs", "flops")
"""Papers on vision call multiply-accumulates FLOPs."""


def counted(system: str, progress: Progress, note: str = "") -> Measured:
    """Every variant on the meta device: its counts equal the card's; published ones are set beside them.

    Published figures count what their tool counted: they do not decide, but those that differ when rounded alike are
    named. Text has no nominal length: the card's `macs_tokens` says for how many tokens.
    """
    card = cards.card(system)
    rows: dict[str, Any] = {}
    wrong, differ, num_published = [], [], 0
    for name, facts in card.variants.items():
        progress(name)
        row = _count(name, facts.get("macs_tokens"))
        rows[name] = row
        for what in ("params", "macs"):
            if facts.get(what) != row[what]:
                wrong.append(f"{name}: {row[what]:,} {what}, the card has {facts.get(what):,}")
        published = facts.get("published", {})
        for what, keys in (("params", ("params",)), ("macs", PUBLISHED_MACS)):
            text = next((str(published[key]) for key in keys if key in published), None)
            if text is None:
                continue
            row[f"published_{what}"] = text
            num_published += 1
            if not agrees(row[what], text):
                differ.append(f"{name} has {row[what] / number(text)[0]:.3f} times the published {text}")
    said = f"{len(rows)} variants counted" + ("" if wrong else ", all as on the card")
    if num_published:
        said += f"; {num_published - len(differ)} of {num_published} published figures are these, rounded"
    if differ:
        note = " ".join(part for part in (f"Differ: {'; '.join(differ)}.", note) if part)
    if wrong:
        note = " ".join(part for part in ("; ".join(wrong), note) if part)
    return Measured(rows, not wrong, said, f"{num_published} figures" if num_published else "", note)


def _count(name: str, tokens: int | None) -> dict[str, Any]:
    with torch.device("meta"):
        model = create_model(name).eval()
    shape = () if tokens is None else (1, tokens)
    report = count_macs(model, *shape)
    return {"params": count_parameters(model).total, "macs": report.per_item, "input": report.shapes[0]}


def number(text: str) -> tuple[float, float]:
    """(value, unit of its last digit) of a figure as papers print it: `1.8G` is (1.8e9, 1e8)."""
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?\s*([kMG]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is no figure")
    whole, decimals, unit = found[1], found[2] or "", UNITS[found[3]]
    return float(f"{whole}.{decimals or 0}") * unit, unit * 10.0 ** -len(decimals)


def agrees(value: float, text: str) -> bool:
    """Whether `value`, rounded to the digits of `text`, is that figure."""
    wanted, last = number(text)
    return abs(value - wanted) <= last / 2
