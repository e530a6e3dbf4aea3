"""The types of options in words: `int, above 0`, `norm spec or null`, `avg | cls`."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "min_length": "length at least"}


def described(hint: Any, role: str | None = None) -> str:
    """A type in words; where the option holds specs of `role`, that."""
    if role is not None:
        many = "list of " if _mentions(hint, list) else ""
        return f"{many}{role} spec{' or null' if _mentions(hint, type(None)) else ''}"
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return ", ".join([described(inner), *_limits(notes)])
    if get_origin(hint) is Literal:
        return " | ".join(str(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(described(member) for member in get_args(hint))
    if get_origin(hint) is not None:
        name = getattr(get_origin(hint), "__name__", str(get_origin(hint)))
        inside = [described(argument) for argument in get_args(hint) if argument is not Ellipsis]
        return f"{name.lower()} of {', '.join(inside)}"
    if hint is type(None):
        return "null"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _mentions(hint: Any, wanted: Any) -> bool:
    return hint is wanted or get_origin(hint) is wanted or any(_mentions(a, wanted) for a in get_args(hint))


def _limits(notes: list[Any]) -> list[str]:
    """What the notes of an annotation allow, pydantic's `Field` taken for what it holds."""
    parts = [part for note in notes for part in getattr(note, "metadata", [note])]
    found = [(words, getattr(part, name, None)) for part in parts for name, words in BOUNDS.items()]
    return [f"{words} {limit}" for words, limit in found if limit is not None]
