"""Shrinking step by step: the least useful sublayer goes while the validation score stays within the bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CannotRewrite
from ..model import Model
from ..registry import find
from ..runtime.ship import calibration
from ..spec import walk
from ..training import train

if TYPE_CHECKING:
    from .fit import Fit

MOST_STEPS = 8


def shrink_steps(fit: Fit, model: Model, metrics: dict[str, Any], heal: int) -> list[dict[str, Any]]:
    """Facts of every step, the trained model first, the fold last; `kept` says whether it was taken.

    A step drops one sublayer (or block, where only whole blocks can go) and trains what is left for `heal` steps; where
    the score is beyond the bound then, shrinking ends with the step before. Folding at the end is exact.
    """
    start = {
        "name": "trained",
        "kept": True,
        "folder": "trained",
        "plans": model.plans,
        "metrics": metrics,
    }
    first = fit.journal.once("shrink/0", lambda: start | _size(model))
    steps = [first]
    for number in range(1, MOST_STEPS + 1):
        before = steps[-1]
        step = fit.journal.once(f"shrink/{number}", lambda: _drop(fit, number, before, first, heal))  # noqa: B023
        if step.get("reason"):
            fit.say(f"shrinking ends: {step['reason']}")
            break
        steps.append(step)
        fit.say(
            f"{step['name']}: {fit.shown(step['metrics'])}, {step['params']:,} parameters"
            + ("" if step["kept"] else " (not kept)")
        )
        if not step["kept"]:
            break
    last = [step for step in steps if step["kept"]][-1]
    steps.append(fit.journal.once("shrink/fold", lambda: _fold(fit, last)))
    times = fit.journal.once(
        "shrink/latency", lambda: fit.timed({str(step["name"]): _open(fit, step) for step in steps})
    )
    return [step | times[str(step["name"])] for step in steps]


def _size(model: Model) -> dict[str, Any]:
    return {"params": sum(p.numel() for p in model.parameters())}


def _open(fit: Fit, step: dict[str, Any]) -> Model:
    return Model.from_pretrained(fit.out / "work" / step["folder"]).eval()


def _drop(fit: Fit, number: int, before: dict[str, Any], first: dict[str, Any], heal: int) -> dict[str, Any]:
    """One step of shrinking."""
    model = _open(fit, before)
    drop = find("rewrite", "drop")
    batches = list(calibration(fit.data, fit.task))
    try:
        plan = drop.decide(model, batches, unit=_unit(model), count=1)
    except CannotRewrite as error:
        return {"name": f"drop {number}", "reason": str(error)}
    drop.perform(model, plan)
    config = fit.habits.config(heal, fit.settings.seed, judgements=4)
    config |= {"learning_rate": config["learning_rate"] / 2}
    folder = fit.out / "work" / f"heal{number}"
    metrics = train(model, fit.data, fit.task, config, folder=folder, resume=True, quiet=True).metrics
    kept = f"shrunk{number}"
    model.save_pretrained(Path(fit.out / "work" / kept))
    return {
        "name": f"drop {number}", "kept": _within(fit, first, metrics), "folder": kept, "plans": model.plans,
        "metrics": metrics, **_size(model),
    }  # fmt: skip


def _unit(model: Model) -> str:
    """What may go one at a time: sublayers, or blocks where a residual spans a whole block."""
    kinds = {node["scheme"]["kind"] for _, role, node in walk(model.resolved) if role == "block"}
    return "block" if "single" in kinds else "joint"


def _within(fit: Fit, first: dict[str, Any], metrics: dict[str, Any]) -> bool:
    metric = fit.task.metric
    return fit.task.points_lost(first["metrics"][metric], metrics[metric]) <= fit.settings.max_drop


def _fold(fit: Fit, before: dict[str, Any]) -> dict[str, Any]:
    """Everything that can be folded exactly."""
    model = _open(fit, before)
    fold = find("rewrite", "fold")
    fold.perform(model, fold.decide(model))
    metrics = fit.task.evaluate(model, fit.data, "validation")
    model.save_pretrained(fit.out / "work" / "folded")
    return {
        "name": "fold", "kept": True, "folder": "folded", "plans": model.plans, "metrics": metrics,
        **_size(model),
    }  # fmt: skip
