"""The pictures of a report, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..tasks.task import SHARE

COLOURS = {
    "attention": "#4c72b0", "gated_deltanet": "#dd8452", "pooling": "#55a868", "depthwise_conv": "#c44e52",
    "spatial_mlp": "#8172b3", "spatial_fc": "#937860", "identity": "#cccccc", "random": "#8c8c8c",
    "mlp": "#dfe6f0", "swiglu": "#e8e0ec", None: "#ffffff",
}  # fmt: skip
PURE, MIXED, SHRUNK = "#7f7f7f", "#1f77b4", "#d62728"


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any, title: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "formery", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": title})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def shown(report: Mapping[str, Any], value: float) -> float:
    """A metric in the unit of the axes: percent for shares, as it is otherwise."""
    return 100 * value if report["metric"]["unit"] == SHARE else value


def label(report: Mapping[str, Any]) -> str:
    """The axis of the metric."""
    metric = report["metric"]
    unit = "%" if metric["unit"] == SHARE else metric["unit"]
    return f"validation {metric['name'].replace('_', ' ')} ({unit}, {metric['direction']} is better)"


def trade_off(report: Mapping[str, Any]) -> str:
    """Score against latency: every candidate as far as it was raced, the trained winner, every step of shrinking."""
    figure = _figure(8, 4.6)
    axes = figure.subplots()
    name = report["metric"]["name"]
    places: list[tuple[float, float, str]] = []
    for kind, pure, colour in (("pure", True, PURE), ("mixed", False, MIXED)):
        rows = [c for c in report["candidates"] if c["raced"] and c["pure"] is pure]
        xs, ys = [c["latency_ms"] for c in rows], [shown(report, c["metrics"][name]) for c in rows]
        axes.scatter(xs, ys, c=colour, s=42, label=f"candidate, {kind}", zorder=3)
        places += [(x, y, f"{c['name']} ({c['steps']})") for x, y, c in zip(xs, ys, rows, strict=True)]
    steps = report["shrinking"]
    kept = [s for s in steps if s["kept"]]
    path = [(s["latency_ms"], shown(report, s["metrics"][name])) for s in kept]
    axes.plot(*zip(*path, strict=True), "-", c=SHRUNK, lw=1, alpha=0.6)
    axes.scatter(*zip(*path, strict=True), c=SHRUNK, marker="D", s=36, label="winner trained, then shrunk", zorder=4)
    lost = [(s["latency_ms"], shown(report, s["metrics"][name])) for s in steps if not s["kept"]]
    if lost:
        axes.scatter(*zip(*lost, strict=True), c=SHRUNK, marker="x", s=36, label="beyond the bound, not kept", zorder=4)
    places += [(x, y, s["name"]) for (x, y), s in zip(path, kept, strict=True) if s in (kept[0], kept[-1])]
    for x, y, text in places:
        axes.annotate(text, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=7.5)
    if (bound := report["settings"]["max_latency"]) is not None:
        axes.axvline(bound, ls="--", c="black", lw=0.8, label=f"bound: {bound:g} ms")
    axes.set_xlabel("latency of one item (ms, eager, batch 1; median of interleaved runs)")
    axes.set_ylabel(label(report))
    axes.margins(x=0.12, y=0.1)
    if report["metric"]["direction"] == "lower":
        axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _svg(figure, "score against latency")


def curves(report: Mapping[str, Any]) -> str:
    """The race, round by round, and the winner's learning curve."""
    figure = _figure(10, 3.6)
    race, final = figure.subplots(1, 2, width_ratios=(1, 1.3))
    name = report["metric"]["name"]
    for candidate in report["candidates"]:
        points = [
            (r["steps"], shown(report, r["results"][candidate["name"]]["metrics"][name]))
            for r in report["race"]
            if candidate["name"] in r["results"]
        ]
        if points:
            wins = candidate["name"] == report["winner"]
            style = {"lw": 2.2, "c": SHRUNK} if wins else {"lw": 1.1, "alpha": 0.8}
            race.plot(*zip(*points, strict=True), marker="o", ms=3.5, label=candidate["name"], **style)
    race.set_title("the race: half the field leaves at each mark", fontsize=9)
    race.set_xlabel("training steps")
    race.set_ylabel(label(report), fontsize=8)
    race.legend(fontsize=7)
    curve = report["training"]["curve"]
    steps = [e["step"] for e in curve]
    final.plot(steps, [shown(report, e["metrics"][name]) for e in curve], c=SHRUNK, marker="o", ms=3)
    final.set_title(f"{report['winner']}, trained", fontsize=9)
    final.set_xlabel("training steps")
    final.set_ylabel(label(report), fontsize=8)
    loss = final.twinx()
    loss.plot(steps, [e["loss"] for e in curve], c="black", lw=0.9, ls=":")
    loss.set_ylabel("training loss (dotted)", fontsize=8)
    if report["metric"]["direction"] == "lower":
        race.invert_yaxis()
        final.invert_yaxis()
    for axes in (race, final):
        axes.grid(alpha=0.3)
    return _svg(figure, "learning curves")


def layout(report: Mapping[str, Any]) -> str:
    """The chosen layout, block by block from left to right: token mixer above, channel mixer below."""
    from matplotlib.patches import Patch, Rectangle

    blocks: Sequence[Mapping[str, Any]] = report["model"]["layout"]
    gone = dropped(report)
    figure = _figure(max(5.0, min(12.0, 1.1 * len(blocks) + 2)), 2.3)
    axes = figure.subplots()
    x, stage = 0.0, ""
    for number, block in enumerate(blocks):
        here = block["path"].rpartition(".blocks.")[0]
        if number and here != stage:
            x += 0.5
            axes.annotate("", (x + 0.02, 1), (x - 0.5, 1), arrowprops={"arrowstyle": "->", "lw": 1})
        stage = here
        for role, y in (("mixer", 1.0), ("channel", 0.0)):
            kind, off = block[role], (block["path"], role) in gone
            if kind is None:
                continue
            face = "white" if off else COLOURS.get(kind, "#bcbd22")
            axes.add_patch(
                Rectangle((x, y), 0.92, 0.92, facecolor=face, edgecolor="#444", lw=0.8, ls=":" if off else "-")
            )
            text = "dropped" if off else kind.replace("_", "\n")
            axes.text(x + 0.46, y + 0.46, text, ha="center", va="center", fontsize=7, color="#999" if off else "black")
        axes.text(x + 0.46, 2.06, str(number), ha="center", fontsize=7, color="#666")
        x += 1.0
    axes.set_xlim(-0.1, x + 0.1)
    axes.set_ylim(-0.1, 2.4)
    axes.set_axis_off()
    kinds = dict.fromkeys(block["mixer"] for block in blocks if block["mixer"])
    axes.legend(
        handles=[Patch(facecolor=COLOURS.get(k, "#bcbd22"), edgecolor="#444", label=k) for k in kinds],
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=len(kinds), frameon=False,
    )  # fmt: skip
    return _svg(figure, "chosen layout")


def dropped(report: Mapping[str, Any]) -> set[tuple[str, str]]:
    """(block, "mixer" or "channel") of every sublayer that shrinking took away."""
    drops = [plan for plan in report["model"]["plans"] if plan["kind"] == "drop"]
    return {(step["block"], name) for plan in drops for step in plan["steps"] for name in step["sublayers"]}
