"""The learning curve on disk: one JSON object a line, added as training goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import Unwritable
from ..files import write_text

NAME = "journal.jsonl"

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
    """The entries in order; a last line that a kill left half written does not count."""
    path = folder / NAME
    entries: list[Entry] = []
    if not path.is_file():
        return entries
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def cut(folder: Path, step: int) -> list[Entry]:
    """Remove what was written after `step`, from where training goes on; what is left."""
    kept = [entry for entry in read(folder) if entry["step"] <= step]
    if (folder / NAME).exists():
        write_text(folder / NAME, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept))
    return kept
