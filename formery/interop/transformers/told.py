"""What transformers' configs say beside the network: tokens that begin, end and pad texts, and the longest text.

A model carries it in its `extra`, so that generation ends where it did, here and in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import read_json
from ...tasks.language import THEIRS

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
LONGEST = "max_position_embeddings"


def told(folder: Path) -> dict[str, Any]:
    """What the `config.json` of a folder says, and its `generation_config.json` before it; entries of another kind are
    left out."""
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        path = folder / name
        content = read_json(path) if path.is_file() else {}
        for key in (*TOKENS, LONGEST):
            value = content.get(key) if isinstance(content, dict) else None
            if _numbers(value) and (key != LONGEST or name == "config.json"):
                found[key] = value
    return found


def _numbers(value: Any) -> bool:
    """Whether this is a whole number from 0 on, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(type(number) is int and number >= 0 for number in values)


def kept(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's `extra` keeps of it, with None for tokens that are not known: transformers would take its own
    defaults for what is left out, which may lie beyond the vocabulary."""
    theirs = extra.get(THEIRS)
    theirs = theirs if isinstance(theirs, dict) else {}
    longest = {LONGEST: theirs[LONGEST]} if _numbers(theirs.get(LONGEST)) else {}
    return {key: theirs[key] if _numbers(theirs.get(key)) else None for key in TOKENS} | longest
