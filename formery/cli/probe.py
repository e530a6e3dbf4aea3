"""`formery probe`: what small models of given mixers can recall, copy and track."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from .models import changes_of
from .options import above_zero
from .output import JSON, emit, say, table


def command(
    task: str = typer.Argument(help="A probe: mqar, phonebook, copy, parity, needle, listops, ..."),
    models: list[str] = typer.Argument(help='Layouts, such as "attention*2" or "gated_deltanet attention".'),
    steps: int = typer.Option(600, min=1, help="Training steps of each model."),
    seeds: int = typer.Option(1, min=1, max=64, help="How many seeds; the mean is shown."),
    width: int = typer.Option(64, min=16, max=1024, help="Width; MLPs make up for what mixers differ in."),
    batch: int = typer.Option(64, min=1, help="Sequences a step."),
    learning_rate: float = typer.Option(3e-3, callback=above_zero, help="The peak of the schedule."),
    rope: bool = typer.Option(False, "--rope", help="Rotary positions in attention; none unless asked for."),
    options: list[str] | None = typer.Option(
        None, "--set", metavar="OPTION=VALUE", help="An option of the probe, such as sizes=[4,8]; may be given often."
    ),
    out: Path | None = typer.Option(None, help="Folder for probe.json and probe.png; what is there already is kept."),
    as_json: bool = JSON,
) -> None:
    """Train small models of equal size on drawn sequences, and score them at every difficulty.

    Example: [bold]formery probe mqar "attention*2" "gated_deltanet*2" --out runs/mqar[/bold]
    """
    from .. import registry
    from ..errors import BadSpec
    from ..spec import checked

    make = registry.find("probe", task)
    given = changes_of(options)
    if len(set(models)) < len(models):
        raise BadSpec("give each layout once")
    probe = make(**checked(make, given, task))

    from ..training import probing

    specs = probing.equal(models, probe, width=width, position="rope" if rope else None)
    training = {"steps": steps, "width": width, "batch": batch, "learning_rate": learning_rate, "rope": rope}
    identity = {"probe": {"name": task, **given}, "training": training}
    found = probing.run_probe(
        probe, specs, steps=steps, seeds=range(seeds), batch_size=batch, learning_rate=learning_rate,
        say=lambda text: say(text, stderr=True), once=None if out is None else _kept(out, identity),
    )  # fmt: skip
    if out is not None:
        from ..files import write_json

        write_json(out / "probe.json", found)
        probing.plot(found, out / "probe.png")
    if as_json:
        emit(found)
        return
    sizes = [str(n) for n in found["sizes"]]
    rows = [
        (row["name"], f"{row['parameters']:,}", *(f"{100 * row['accuracy'][n]:.1f} %" for n in sizes))
        for row in found["models"]
    ]
    rows.append(("chance", "", *[f"{100 * found['chance']:.1f} %"] * len(sizes)))
    title = f"{task}: right answers by {found['unit']} (trained on {', '.join(map(str, found['trained']))})"
    table(title, ("model", "parameters", *sizes), rows, right=range(1, len(sizes) + 2))


def _kept(out: Path, identity: dict[str, Any]) -> Any:
    """The journal of this probe in `out`: models that are done are not trained again; another one is refused there."""
    from ..search.journal import Journal

    journal = Journal(out / "work" / "journal")
    journal.begin(identity, resume=True)
    return lambda name, make: journal.once(name.replace("*", "x").replace(" ", "_"), make)
