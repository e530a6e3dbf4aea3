"""`formery doctor`: what is installed, what each extra adds, and the pip line for what is missing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import typer

from .output import JSON, console, emit, table

ADDS = {
    "": "everything but what the extras add",
    "hf": "checkpoints of transformers, tokenizers",
    "timm": "rewrites and comparisons on timm's models",
    "export": "ONNX export, int8, predict with .onnx files",
    "test": "the test suite and linters",
    "docs": "the documentation's pages",
}


def command(
    try_imports: bool = typer.Option(False, "--import", help="Import each library as well (seconds), not only look it up."),
    as_json: bool = JSON,
) -> None:
    """Say what is installed, what each extra adds, and how to get what is missing.

    Example: [bold]formery doctor[/bold]
    """
    rows = _libraries(try_imports)
    machine = {"python": platform.python_version(), "system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    missing = sorted({row["extra"] for row in rows if not row["version"] and row["extra"] not in ("test", "docs")})
    lines = [f"pip install 'formery[{','.join(e for e in missing if e)}]'" if any(missing) else "", "pip install formery" if "" in missing else ""]
    pip = [line for line in lines if line]
    if as_json:
        emit({"formery": _version("formery"), "machine": machine, "libraries": rows, "pip": pip})
        return
    console().print(f"[bold]formery {_version('formery')}[/bold], python {machine['python']}, {machine['processor']}, {machine['cores']} cores\n")
    for extra, adds in ADDS.items():
        own = [row for row in rows if row["extra"] == extra]
        title = f"formery[{extra}]: {adds}" if extra else f"formery: {adds}"
        table(title, ["library", "installed", "wanted", "state"], [(r["library"], r["version"] or "-", r["wanted"], r["state"]) for r in own])
    for line in pip:
        console().print(f"missing: [bold]{line}[/bold]", markup=True)
    if not pip:
        console().print("nothing is missing")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _libraries(try_imports: bool) -> list[dict[str, Any]]:
    from packaging.requirements import Requirement

    try:
        lines = requires("formery") or []
    except PackageNotFoundError:
        lines = []
    rows = []
    for line in lines:
        need = Requirement(line)
        if need.name == "formery":
            continue
        extra = next((e for e in ADDS if e and need.marker is not None and need.marker.evaluate({"extra": e})), "")
        if need.marker is not None and not extra and not need.marker.evaluate({"extra": ""}):
            continue
        found = _version(need.name)
        state = "missing" if found is None else "ok" if need.specifier.contains(found, prereleases=True) else "too old"
        if try_imports and found:
            state = _imported(need.name, state)
        rows.append({"library": need.name, "version": found, "wanted": str(need.specifier), "extra": extra, "state": state})
    return rows


def _imported(name: str, state: str) -> str:
    from importlib import import_module

    module = {"scikit-learn": "sklearn", "huggingface-hub": "huggingface_hub", "pyyaml": "yaml", "pillow": "PIL", "pytest-xdist": "xdist", "import-linter": "importlinter", "pre-commit": "pre_commit", "types-pyyaml": "", "mkdocs-material": "material", "mkdocstrings": "mkdocstrings"}.get(name.lower(), name)  # fmt: skip
    try:
        import_module(module) if module else None
    except Exception as error:  # whatever an installed library raises, the doctor reports
        return f"does not import: {type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"
    return state
