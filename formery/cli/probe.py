"""`formery probe`: what small models of given mixers can recall, copy and track."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .models import changes_of
from .options import above_zero
from .output import JSON, emit, say, table

if TYPE_CHECKING:
    from ..search.journal import Journal

Keep = Callable[[str, Callable[[], Any]], Any]
REPORT, PICTURE = "probe.json", "probe.png"


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
    out: Path | None = typer.Option(
        None,
        help="Folder for probe.json and probe.png, of this call's layouts. Scores of trained models stay in work/: "
        "called again there, with these or more layouts, only models that are missing or of another size are trained.",
    ),
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

    if out is not None:
        _check_place(out)

    from ..training import probing

    specs = probing.equal(models, probe, width=width, position="rope" if rope else None)
    training = {"steps": steps, "width": width, "batch": batch, "learning_rate": learning_rate, "rope": rope}
    identity = {"probe": {"name": task, **given}, "training": training}
    found = probing.run_probe(
        probe, specs, steps=steps, seeds=range(seeds), batch_size=batch, learning_rate=learning_rate,
        say=lambda text: say(text, stderr=True), once=None if out is None else _kept(out, identity, probe.sizes),
    )  # fmt: skip
    if out is not None:
        from ..files import write_json

        write_json(out / REPORT, found)
        probing.plot(found, out / PICTURE)
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


def _check_place(out: Path) -> None:
    """Unwritable where the report would take the place of a file that is not a probe's, before anything is trained."""
    from ..errors import BadFile, Unwritable
    from ..files import read_json

    path = out / REPORT
    if not path.exists():
        return
    try:
        there = read_json(path)
    except BadFile:
        there = None
    if not isinstance(there, dict) or not {"probe", "trained", "sizes", "models"} <= there.keys():
        raise Unwritable(f"{path} is there and not of a probe; move it away, or choose another --out")


def _kept(out: Path, identity: dict[str, Any], sizes: Iterable[int]) -> Keep:
    """The journal of this probe in `out`: models that are done are not trained again, those whose entry is damaged are;
    another probe is refused there."""
    from ..search.journal import Journal

    journal = Journal(out / "work" / "journal")
    journal.begin(identity, resume=True)
    wanted = {str(size) for size in sizes}

    def once(key: str, make: Callable[[], Any]) -> Any:
        if journal.has(key) and (damage := _damage(journal, key, wanted)):
            say(f"{damage}: that model is trained again", stderr=True)
            journal.forget(key)
        return journal.once(key, make)

    return once


def _damage(journal: Journal, key: str, sizes: set[str]) -> str:
    """What is wrong with an entry of the journal; nothing if it holds a score for each of the sizes."""
    from ..errors import BadFile

    try:
        trial = journal.get(key)
    except BadFile as error:
        return str(error)
    scores = trial.get("accuracy") if isinstance(trial, dict) else None
    whole = isinstance(scores, dict) and all(isinstance(scores.get(size), int | float) for size in sizes)
    return "" if whole else f"the entry {key} in {journal.folder} is not a probe's"
