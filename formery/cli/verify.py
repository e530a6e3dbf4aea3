"""`formery verify`: the claims on cards, checked here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from .output import JSON, console, emit, line, say, table

FAILED = 1


def command(
    names: list[str] = typer.Argument(
        None, metavar="[NAME]...", help="Systems, models, rewrites ('metaformer', 'vit_tiny', 'drop'); all by default."
    ),
    slow: bool = typer.Option(False, "--slow", help="Check the slow claims too: they train small models for minutes."),
    claim: list[str] = typer.Option(None, "--claim", metavar="ID", help="Only this claim; may be given often."),
    save: bool = typer.Option(False, "--save", help="Record what was found on the cards, with date and machine."),
    seed: int = typer.Option(0, min=0, help="Seed of weights and data."),
    as_json: bool = JSON,
) -> None:
    """Check what papers claim: published beside measured, each failure explained. Exits with 1 where a claim failed.

    Example: [bold]formery verify metaformer[/bold], [bold]formery verify olmo_hybrid --slow --claim parity[/bold]
    """
    from ..claims import verify

    with _telling() as tell:
        results = verify(names or [], slow, claims=claim or [], seed=seed, progress=tell)
    if save:
        from ..claims.record import record

        for path in record(results):
            say(f"recorded in {path}", stderr=True)
    if as_json:
        emit(results)
    else:
        _show(results)
    if any(result["verdict"] in ("failed", "broken") for result in results):
        raise typer.Exit(FAILED)


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """A line on a terminal's stderr that says what is being checked now."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda text: None
        return
    with out.status("") as status:
        yield status.update


def _show(results: list[dict[str, Any]]) -> None:
    for system in dict.fromkeys(result["system"] for result in results):
        rows = [
            (r["claim"], r["bar"], r["published"], _measured(r), _verdict(r)) for r in results if r["system"] == system
        ]
        table(system, ["claim", "bar", "published", "measured", "verdict"], rows)
    for result in results:
        if result["claim"] == "figures" and result["value"]:
            _figures(result)
    for result in results:
        if result["note"] and result["verdict"] != "not run":
            say(f"{result['system']} {result['claim']}, {result['verdict']}: {line(result['note'])}")
    counts = Counter(result["verdict"] for result in results)
    say(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "these cards claim nothing")


def _figures(result: dict[str, Any]) -> None:
    """Counted and published figures of each variant."""
    kinds = ("params", "published_params", "macs", "published_macs")
    rows = [
        (name, *(f"{row[kind]:,}" if isinstance(row.get(kind), int) else row.get(kind) for kind in kinds))
        for name, row in result["value"].items()
    ]
    columns = ["variant", "params", "published", "MACs", "published"]
    table(f"{result['system']} figures", columns, rows, right=(1, 2, 3, 4))


def _measured(result: dict[str, Any]) -> str:
    """What was found now; for a slow claim that was not run, what its card records."""
    found = result["recorded"]
    if result["verdict"] != "not run":
        return f"{result['said']} ({result['seconds']:.1f} s)" if result["said"] else ""
    if found is None:
        return str(result["note"])
    return f"{found['date']}: {found['verdict']}: {found['said']} ({found['seconds']:.0f} s, {found['machine']})"


def _verdict(result: dict[str, Any]) -> str:
    return "not run (--slow)" if result["verdict"] == "not run" and result["slow"] else str(result["verdict"])
