"""What a table is made of, and how it is written: Markdown for people, JSON with every sample for everybody else."""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from formery.files import write_json, write_text
from formery.measure import Comparison, Machine, machine
from formery.ops.linear import chosen

LIBRARIES = ("formery", "torch", "timm", "transformers")


def asked(words: str, only: str) -> bool:
    """Whether any of `only`, parts of words separated by commas, stands in them."""
    return any(part in words for part in only.split(","))


@dataclass
class Cell:
    """One comparison under one set of conditions."""

    conditions: dict[str, str]
    """What changes from cell to cell: model, dtype, batch..."""
    comparison: Comparison
    errors: dict[str, float]
    """Largest difference of each model's output to the reference, in units of the reference's largest value."""
    load: float
    """Processes that wanted to run, averaged over the minute before; above the threads used, the machine was busy."""


@dataclass
class Record:
    """A table: cells, and everything needed to make it again."""

    name: str
    title: str
    notes: str
    """What stands above the cells, as Markdown."""
    threads: int
    cells: list[Cell] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    command: str = field(default_factory=lambda: shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"))
    versions: dict[str, str] = field(default_factory=lambda: {name: version(name) for name in LIBRARIES})

    def add(self, conditions: dict[str, str], measure: Callable[[], tuple[Comparison, dict[str, float]]]) -> None:
        """Measure a cell; one that fails is noted, and the others go on."""
        words = " ".join(conditions.values())
        load = os.getloadavg()[0]
        try:
            comparison, errors = measure()
        except Exception as error:
            self.failures.append(f"{words}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            print(f"{self.name}: {self.failures[-1]}", file=sys.stderr, flush=True)
            return
        self.cells.append(Cell(conditions, comparison, errors, load))
        ratios = ", ".join(f"{row.name} {row.ratio:.2f}x" for row in comparison.rows)
        print(
            f"{self.name}: {words} ({comparison.rounds} rounds, load {load:.1f}): {ratios}", file=sys.stderr, flush=True
        )

    def note(self, words: str, measure: Callable[[], str]) -> None:
        """Measure something that is told in a line."""
        try:
            self.remarks.append(f"{words}: {measure()}")
        except Exception as error:
            self.failures.append(f"{words}: {type(error).__name__}: {error}")
        print(f"{self.name}: {(self.remarks or self.failures)[-1]}", file=sys.stderr, flush=True)

    def write(self, folder: Path) -> None:
        """`NAME.md` and `NAME.json`, each as a whole or not at all."""
        write_text(folder / f"{self.name}.md", self.markdown(machine(self.threads)))
        plain = asdict(self) | {"machine": machine(self.threads).as_dict(), "linear": chosen()}
        write_json(folder / f"{self.name}.json", plain)

    def markdown(self, here: Machine) -> str:
        """The page."""
        lines = [f"# {self.title}", "", self.notes]
        for cell in self.cells:
            lines += _section(cell)
        if self.remarks:
            lines += ["## Besides", "", *(f"- {remark}" for remark in self.remarks), ""]
        if self.failures:
            lines += ["## Not measured", "", *(f"- {failure}" for failure in self.failures), ""]
        fp32, bf16 = f"{2 * here.fp32 / 1e9:.0f} GFLOP/s in float32 ({here.libraries})", f"{2 * here.bf16 / 1e9:.0f}"
        lines += [
            "## How this was made",
            "",
            f"- `{self.command}`, {self.date}",
            "- " + ", ".join(f"{name} {number}" for name, number in self.versions.items()),
            f"- {here.processor}, {here.cores} cores, {self.threads} thread(s)",
            f"- products of matrices at best: {fp32}, {bf16} in bfloat16; memory {here.bandwidth / 1e9:.1f} GB/s",
            f"- Python {sys.version.split()[0]}, torch with {torch.backends.cpu.get_cpu_capability()}",
            "",
        ]
        return "\n".join(lines)


def _section(cell: Cell) -> Iterable[str]:
    comparison = cell.comparison
    yield f"## {', '.join(cell.conditions.values())}"
    yield ""
    yield f"{comparison.rounds} rounds, load {cell.load:.1f}. Ratios are to {comparison.base}."
    yield ""
    yield "| model | median ms | spread | ratio | 1st quartile | of products | of memory | error |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in comparison.rows:
        error = f"{cell.errors[row.name]:.0e}" if row.name in cell.errors else "-"
        shares = ["-" if part is None else f"{part:.0%}" for part in (row.of_products, row.of_bandwidth)]
        cells: list[Any] = [
            row.name,
            f"{1e3 * row.timing.median:.2f}",
            f"{row.timing.spread:.0%}",
            f"{row.ratio:.2f}",
            f"{row.ratio_lower:.2f}",
            *shares,
            error,
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
