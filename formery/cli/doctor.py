"""`formery doctor`: what is installed, what each extra adds, and the pip line for what is missing."""

from __future__ import annotations

import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from typing import TYPE_CHECKING, Any

import typer

from ..host import cores, processor
from .output import JSON, emit, say, table

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ADDS = {
    "": "everything but what the extras add",
    "hf": "checkpoints of transformers, tokenizers",
    "timm": "rewrites and comparisons on timm's models",
    "export": "ONNX export, int8, predict with .onnx files",
    "gpu": "kernels for recurrences on GPUs",
    "test": "the test suite and linters",
    "docs": "the documentation's pages",
}
"""What each extra is for; the first are formery's own libraries."""

FOR_DEVELOPERS = ("test", "docs")


def command(
    try_imports: bool = typer.Option(
        False, "--import", help="Import each library as well (seconds), not only look it up."
    ),
    as_json: bool = JSON,
) -> None:
    """Say what is installed, what each extra adds, and how to get what is missing.

    Example: [bold]formery doctor[/bold], [bold]formery doctor --import[/bold]
    """
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
    }
    rows = _libraries(try_imports)
    remedies = _remedies(rows)
    if as_json:
        emit({"formery": _version("formery"), "machine": machine, "libraries": rows, "pip": remedies})
        return
    about = f"python {machine['python']}, {machine['processor']}, {machine['cores']} cores"
    say(f"formery {_version('formery') or 'from source'}, {about}\n")
    for extra, adds in ADDS.items():
        own = [row for row in rows if row["extra"] == extra]
        cells = [(row["library"], row["version"] or "-", row["wanted"], row["state"]) for row in own]
        title = f"formery[{extra}]: {adds}" if extra else f"formery: {adds}"
        table(title, ["library", "installed", "wanted", "state"], cells)
    for remedy in remedies:
        say(f"missing: {remedy}")
    if not remedies:
        say("nothing is missing")


def _remedies(rows: list[dict[str, Any]]) -> list[str]:
    """Lines for pip that bring what users lack; what only developers need is left out."""
    lacking = {row["extra"] for row in rows if row["state"] != "ok"} - {*FOR_DEVELOPERS}
    extras = ",".join(sorted(lacking - {""}))
    lines = [f"pip install --upgrade 'formery[{extras}]'"] if extras else []
    return lines + (["pip install --upgrade formery"] if "" in lacking else [])


def _libraries(try_imports: bool) -> list[dict[str, Any]]:
    """A row for each library that formery or one of its extras asks for here."""
    rows = []
    for need, extra in _needs():
        found = _version(need.name)
        state = "missing" if found is None else "ok" if need.specifier.contains(found, prereleases=True) else "too old"
        if try_imports and found is not None:
            state = _imported(need.name) or state
        rows.append(
            {"library": need.name, "version": found, "wanted": str(need.specifier), "extra": extra, "state": state}
        )
    return rows


def _needs() -> list[tuple[Requirement, str]]:
    """(requirement, extra) of everything that applies to this machine."""
    from packaging.requirements import Requirement

    try:
        lines = requires("formery") or []
    except PackageNotFoundError:
        return []
    needs = []
    for line in lines:
        need = Requirement(line)
        extras = [extra for extra in ADDS if need.marker is None or need.marker.evaluate({"extra": extra})]
        if need.name != "formery" and extras:
            needs.append((need, extras[0]))
    return needs


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _imported(name: str) -> str | None:
    """Why a library does not import; None where it does, or has nothing to import."""
    files = distribution(name).files or []
    tops = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py" and len(file.parts) <= 2}
    modules = sorted(top for top in tops if top.isidentifier() and not top.startswith("_"))
    try:
        for module in modules[:1]:
            import_module(module)
    except Exception as error:  # whatever an installed library raises, the doctor reports
        first = str(error).strip().splitlines()[:1]
        return f"does not import: {type(error).__name__}{': ' + first[0][:60] if first else ''}"
    return None
