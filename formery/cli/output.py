"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

JSON = typer.Option(False, "--json", help="Print JSON instead of a table.")

UNBOUND = 10_000
"""Columns where nobody looks on: a line stays a line, for grep and for files."""


def console(*, stderr: bool = False) -> Console:
    """A rich console; plain and without wrapping where the output is no terminal and no COLUMNS say how wide it is."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    fits = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(stderr=stderr, width=None if fits else UNBOUND, highlight=False, soft_wrap=not fits)


def say(text: str, *, stderr: bool = False) -> None:
    """Print plain text, wrapped only on terminals."""
    out = console(stderr=stderr)
    out.print(text, markup=False) if out.is_terminal else print(text, file=out.file)


def emit(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[int] = ()) -> None:
    """Print a table; `right` numbers the columns that are aligned to the right."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(title=escape(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i in right else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        made.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    out = console()
    if out.is_terminal:
        out.print(made)
        return
    with out.capture() as captured:
        out.print(made)
    print("\n".join(row.rstrip() for row in captured.get().splitlines()))


def number(value: float | int | None) -> str:
    """A count that people read: 11.9 M, 1.82 G."""
    if value is None:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def counted(number: int, what: str) -> str:
    """1 model, 2 models."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def line(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())
