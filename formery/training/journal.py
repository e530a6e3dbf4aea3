"""The learning curve on disk: one JSON object a line, added as training goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import BadFile, Unwritable
from ..files import write_text

NAME = "journal.jsonl"

NUMBERS = ("loss", "rate", "score", "seconds")

Entry = dict[str, Any]
"""step, loss (mean over the training steps since the last entry), rate, score, metrics, seconds."""


def append(folder: Path, entry: Entry) -> None:
    """Add an entry."""
    path = folder / NAME
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise Unwritable(f"cannot write {path}: {error.strerror or error}; choose another place") from error


def read(folder: Path) -> list[Entry]:
    """The entries in order, but for a last line that a kill left half written; BadFile for another that is none."""
    path = folder / NAME
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror or error}; mend its permissions") from None
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not _is_entry(entry):
            if number == len(lines):
                break
            raise BadFile(f"{path}: line {number} is no entry of a training's journal; mend it, or remove the line")
        entries.append(entry)
    return entries


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("metrics"), dict):
        return False
    numbers = [value.get(name) for name in NUMBERS] + list(value["metrics"].values())
    return type(value.get("step")) is int and all(type(number) in (int, float) for number in numbers)


def cut(folder: Path, step: int) -> list[Entry]:
    """Remove what was written after `step`, from where training goes on; what is left."""
    kept = [entry for entry in read(folder) if entry["step"] <= step] if step > 0 else []
    if (folder / NAME).exists():
        write_text(folder / NAME, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept))
    return kept
