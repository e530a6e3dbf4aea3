"""`report.html`: one file with everything a fit found, its pictures inside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..files import write_text
from ..tasks.task import in_words
from . import plots

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; } th, td { padding: .25rem .6rem; text-align: left; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #eee; } td.n { text-align: right; }
tr.win td { background: #fdf3e7; } svg { max-width: 100%; height: auto; }
.note { color: #666; font-size: 13px; }
.big { display: flex; gap: 2rem; flex-wrap: wrap; }
.big div { min-width: 9rem; } .big b { display: block; font-size: 1.5rem; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12.5px; }
"""


def write_report(path: str | Path, report: Mapping[str, Any]) -> None:
    """Write the report of `report.json`'s content as one self-contained page."""
    write_text(path, page(report))


def page(report: Mapping[str, Any]) -> str:
    """The page's HTML."""
    name = report["data"]["name"]
    parts = [
        f"<h1>formery fit: {escape(str(name))}</h1>",
        _figures(report),
        "<h2>Score against latency</h2>",
        plots.trade_off(report),
        '<p class="note">In brackets: the training steps a candidate had when it left the race.</p>',
        "<h2>The chosen layout</h2>",
        plots.layout(report),
        f'<p class="note">{escape(_said(report))}</p>',
        "<h2>Learning curves</h2>",
        plots.curves(report),
        "<h2>Candidates</h2>",
        _candidates(report),
        "<h2>Shrinking</h2>",
        _shrinking(report),
        "<h2>Test part, looked at once</h2>",
        _tests(report),
        "<h2>How it was made</h2>",
        _made(report),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>formery fit: {escape(str(name))}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def value(report: Mapping[str, Any], metric: float | None) -> str:
    """A metric as people read it."""
    return "" if metric is None else in_words(metric, report["metric"]["unit"])


def _figures(report: Mapping[str, Any]) -> str:
    name = report["metric"]["name"]
    model, export = report["model"], report["export"]
    cells = [
        (report["winner"], "winner"),
        (value(report, report["validation"][name]), f"validation {name.replace('_', ' ')}"),
        (value(report, report["test"][f"{name}_onnx"]), "test, shipped ONNX"),
        (f"{model['params']:,}", "parameters"),
        (f"{model['latency_ms']:.2f} ms", "eager, batch 1"),
        (f"{export['onnx_latency_ms']:.2f} ms", "ONNX, batch 1"),
    ]
    return '<div class="big">' + "".join(f"<div><b>{escape(str(a))}</b>{escape(b)}</div>" for a, b in cells) + "</div>"


def _said(report: Mapping[str, Any]) -> str:
    idea = next(c["idea"] for c in report["candidates"] if c["name"] == report["winner"])
    rewrites = ", ".join(plan["kind"] for plan in report["model"]["plans"]) or "none"
    return f"{report['winner']}: {idea}. Rewrites performed: {rewrites}. Dotted: what shrinking removed."


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], numbers: Sequence[int] = ()) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(f'<td class="{"n" if i in numbers else ""}">{escape(str(c))}</td>' for i, c in enumerate(cells))
        + "</tr>"
        for kind, cells in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _candidates(report: Mapping[str, Any]) -> str:
    name = report["metric"]["name"]
    rows = []
    for c in sorted(report["candidates"], key=lambda c: (-(c.get("steps") or 0), -(c.get("score") or -1e9))):
        score = value(report, c["metrics"][name]) if c["raced"] else "beyond the bounds"
        cells = [
            c["name"],
            c["idea"],
            "pure" if c["pure"] else "mixed",
            f"{c['params']:,}",
            f"{c['latency_ms']:.2f}",
            c.get("steps", 0),
            score,
        ]
        rows.append(("win" if c["name"] == report["winner"] else "", cells))
    head = [
        "candidate",
        "idea",
        "kind",
        "parameters",
        "latency (ms)",
        "steps raced",
        f"validation {name.replace('_', ' ')}",
    ]
    return _table(head, rows, numbers=(3, 4, 5, 6))


def _shrinking(report: Mapping[str, Any]) -> str:
    name = report["metric"]["name"]
    rows = []
    for step in report["shrinking"]:
        score = value(report, step["metrics"][name])
        cells = [
            step["name"],
            f"{step['params']:,}",
            f"{step['latency_ms']:.2f}",
            score,
            "yes" if step["kept"] else "no",
        ]
        rows.append(("" if step["kept"] else "note", cells))
    head = ["step", "parameters", "latency (ms)", f"validation {name.replace('_', ' ')}", "kept"]
    points = f"{report['settings']['max_drop']:g} points"
    note = f"Bound: {points} below the trained model. What is left is trained on after each drop."
    return _table(head, rows, numbers=(1, 2, 3)) + f'<p class="note">{note}</p>'


def _tests(report: Mapping[str, Any]) -> str:
    name, test = report["metric"]["name"], report["test"]
    rows = [
        ("win", ["shipped ONNX", value(report, test[f"{name}_onnx"])]),
        ("", ["the same in torch", value(report, test[name])]),
    ]
    if f"{name}_int8" in test:
        rows.append(("", ["shipped int8 ONNX", value(report, test[f"{name}_int8"])]))
    rows += [
        ("", [f"baseline: {what.replace('_', ' ')}", value(report, found)]) for what, found in test["baselines"].items()
    ]
    int8 = report["export"]["int8"]
    note = ""
    if not int8["shipped"]:
        why = (
            int8.get("reason")
            or f"it would cost {int8['points_lost']:.2f} points on validation data, and {int8['max_drop']:.2f} are left"
        )
        note = f'<p class="note">No int8 model is shipped: {escape(why)}.</p>'
    return _table(["model", name.replace("_", " ")], rows, numbers=(1,)) + note


def _made(report: Mapping[str, Any]) -> str:
    keys = ("data", "settings", "task", "versions", "machine")
    facts = {key: report[key] for key in keys} | {"formery": report["formery"]}
    resolved = json.dumps(report["model"]["resolved"], indent=1)
    return (
        f"<pre>{escape(json.dumps(facts, indent=1, ensure_ascii=False))}</pre>"
        f"<details><summary>resolved spec of the winner</summary><pre>{escape(resolved)}</pre></details>"
    )
