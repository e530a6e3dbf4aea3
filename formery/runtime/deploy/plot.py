"""Time of each form beside how well it agrees, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BASE, CHOSEN, OTHER, UNFIT = "#7f7f7f", "#2ca02c", "#1f77b4", "#d62728"


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Bars of milliseconds, fastest on top; green is chosen, red does not agree enough."""
    from matplotlib.figure import Figure

    rows = sorted((row for row in report["rows"] if "milliseconds" in row), key=lambda row: row["milliseconds"])
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [row["form"] for row in rows]
    bars = axes.barh(names, [row["milliseconds"] for row in rows], color=[_colour(report, row) for row in rows])
    axes.bar_label(bars, [_words(row) for row in rows], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(row["milliseconds"] for row in rows))
    axes.set_xlabel(f"milliseconds for {report['batch']} image(s), median; {report['threads']} thread(s)")
    axes.set_title(f"{report['model']}: {report['chosen']} is the fastest that agrees", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _colour(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if row["form"] == report["chosen"]:
        return CHOSEN
    if "top1" not in row:
        return BASE
    return UNFIT if row.get("unfit") else OTHER


def _words(row: Mapping[str, Any]) -> str:
    words = f"{row['milliseconds']:.1f} ms, {row['ratio']:.2f}x"
    return words if "top1" not in row else f"{words}, {row['top1']:.0%} agree"
