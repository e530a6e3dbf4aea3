"""Every exact rewrite that a model allows, one after another, each checked on images and timed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import registry, rewrites
from ...errors import CannotRewrite
from ...measure import compare
from ...model import Model
from ...rewrites.rewrite import Exact
from .agreement import agreement, outputs

CLOSE = 1e-4
"""Largest change of a float32 score, in units of the largest, that an exact rewrite may make by rounding."""
MEASURED: dict[str, dict[str, Any]] = {"recentre": {"rewrite": "fold", "recentre": True}}
"""Exact rewrites that are not faster everywhere: taken where they are here."""
FASTER = 1.02
"""How much faster, in the first quartile of rounds, what is measured has to be."""


def exact() -> list[str]:
    """Names of the exact rewrites; the fold comes last, so that it finds what others have cleared the way for."""
    names = [name for name in registry.index("rewrite") if issubclass(rewrites.find(name), Exact)]
    return sorted(names, key=lambda name: (name == "fold", name))


def rewritten(
    model: Model, images: Tensor, *, seconds: float, threads: int | None, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Rewrite `model` in place; what was done, and what was left alone and why, by rewrite.

    CannotRewrite where scores change by more than rounding: then nothing about the model can be believed.
    """
    expected = outputs(model, images)
    found = []
    for name in exact():
        tell(f"rewrite: {name}")
        found.append(_taken(model, name, {}, expected, images))
    for label, options in MEASURED.items():
        tell(f"rewrite: {label}, if it is faster here")
        own = dict(options)
        found.append({"label": label} | _tried(model, own.pop("rewrite"), own, expected, images, seconds, threads))
    return found


def _taken(model: Model, name: str, options: dict[str, Any], expected: Tensor, images: Tensor) -> dict[str, Any]:
    before = sum(p.numel() for p in model.parameters())
    try:
        _, plan, _ = rewrites.apply(model, name, **options)
    except CannotRewrite as error:
        return {"rewrite": name, "taken": False, "steps": {}, "refused": [], "why": str(error)}
    entry = _entry(name, plan)
    if not plan["steps"]:
        return entry | {"taken": False, "why": rewrites.find(name).why_not(model) or "nothing to do"}
    checked = agreement(expected, outputs(model, images))
    if checked.difference > CLOSE:
        raise CannotRewrite(
            f"{name} is exact, but scores changed by {checked.difference:.1e} of their scale; this is a fault of "
            "formery or of weights that are no numbers: leave rewrites out by --no-rewrites"
        )
    after = sum(p.numel() for p in model.parameters())
    return entry | {"taken": True, "parameters": [before, after], "difference": checked.difference}


def _tried(
    model: Model,
    name: str,
    options: dict[str, Any],
    expected: Tensor,
    images: Tensor,
    seconds: float,
    threads: int | None,
) -> dict[str, Any]:
    """Taken if a copy is faster with it."""
    trial = copy.deepcopy(model)
    entry = _taken(trial, name, options, expected, images)
    if not entry["taken"]:
        return entry
    one = images[:1]
    with torch.no_grad():
        found = compare(
            {"before": lambda: model(one), "after": lambda: trial(one)},
            seconds=seconds, threads=threads, shares=False, least=3,
        )["after"]  # fmt: skip
    entry["ratio"] = found.ratio
    if found.ratio_lower < FASTER:
        return entry | {"taken": False, "why": f"exact, but {found.ratio:.2f} times as fast here; left out"}
    return entry | _taken(model, name, options, expected, images) | {"ratio": found.ratio}


def _entry(name: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Steps by kind with their number, and refusals by reason with theirs."""
    steps: dict[str, int] = {}
    for step in plan["steps"]:
        kind = step.get("do", name)
        steps[kind] = steps.get(kind, 0) + 1
    refused: dict[tuple[str, str], list[str]] = {}
    for refusal in plan.get("refused", []):
        refused.setdefault((refusal["what"], refusal["why"]), []).append(refusal["where"])
    reasons = [
        {"what": what, "why": why, "where": places[0], "times": len(places)} for (what, why), places in refused.items()
    ]
    return {"rewrite": name, "steps": steps, "refused": reasons}
