"""What the pages show is run: the Python blocks of a page in order, and the commands of its shell blocks."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from formery import measure, registry
from formery.interop.transformers import model_types

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"`(formery(?:\.\w+){2,})")
"""A place inside a room of the package, as pages write it; a call may follow."""


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


def pages(language: str) -> pytest.MarkDecorator:
    shown = [page for page in PAGES if blocks(page, language)]
    return pytest.mark.parametrize("page", shown, ids=[str(page.relative_to(ROOT)) for page in shown])


def commands() -> list[str]:
    shown = [re.findall(r"^formery (\w+)", code, re.MULTILINE) for page in PAGES for code in blocks(page, "sh")]
    return sorted({name for names in shown for name in names})


@pytest.fixture
def _forgotten() -> Iterator[None]:
    """Parts that a page registers are forgotten after it."""
    yield
    registry.unregister("mixer", "shift")


def run(page: Path) -> dict[str, object]:
    """The names that a page's blocks define, run in one namespace that stands where a mixer's file would.

    A block about a file of the reader's (`path/to`) is only compiled.
    """
    names: dict[str, object] = {"__name__": "formery.parts.mixers.shown", "__package__": "formery.parts.mixers"}
    for number, code in enumerate(blocks(page, "python"), start=1):
        compiled = compile(code, f"{page.name}, block {number}", "exec", dont_inherit=True)
        if "path/to" not in code:
            exec(compiled, names)
    return names


@pages("python")
@pytest.mark.usefixtures("_forgotten")
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page)


@pytest.mark.parametrize("command", commands())
def test_shown_commands_exist(command: str) -> None:
    start = [sys.executable, "-c", "from formery.cli import main; main()", command, "--help"]
    done = subprocess.run(start, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def paths() -> list[str]:
    return sorted({path for page in PAGES for path in PATH.findall(page.read_text())})


@pytest.mark.parametrize("path", paths())
def test_shown_places_exist(path: str) -> None:
    assert resolve_name(path) is not None


def test_the_configs_that_are_read_are_listed() -> None:
    (listed,) = re.findall(r"Known are (.*?)\.", (ROOT / "docs" / "generate.md").read_text(), re.DOTALL)
    assert re.findall(r"`(\w+)`", listed) == model_types()


def test_all_that_measures_is_listed() -> None:
    cells = re.findall(r"^\| (`.*?`) \|", (ROOT / "docs" / "measure.md").read_text(), re.MULTILINE)
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    measures = {name for name in measure.__all__ if inspect.isfunction(getattr(measure, name))}
    assert listed == measures


def test_the_part_in_twenty_lines_does_what_it_says() -> None:
    mixer = run(ROOT / "CONTRIBUTING.md")["LeakySum"](4, decay=0.5)  # type: ignore[operator]
    x = torch.randn(2, 7, 4, dtype=torch.float64)
    y, expected = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        y = 0.5 * y + x[:, t]
        expected.append(y)
    torch.testing.assert_close(mixer(x), torch.stack(expected, dim=1))
