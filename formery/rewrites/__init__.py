"""Rewrites: model to model, exact or measured.

    from formery import rewrites

    model, plan, report = rewrites.apply(model, "fold")
    model, plan, report = rewrites.apply(model, "drop", data, unit="mixer", ratio=0.25)

`decide` looks and chooses and touches nothing; its plan is JSON. `perform` is surgery by a plan, without data or
chance, on the meta device too, so that a saved model is rebuilt by replaying its plans. Any order and any repetition is
fine unless `decide` says why not: a fold finds nothing to do the second time, and folds and drops leave each other's
work alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import registry

if TYPE_CHECKING:
    from torch import nn

    from .rewrite import Plan, Rewrite

INDEX = {
    "drop": "drop:Drop",
    "fold": "fold:Fold",
    "reparameterize": "reparameterize:Reparameterize",
    "tabulate": "tabulate:Tabulate",
}


def find(name: str) -> type[Rewrite]:
    """The rewrite registered as `name`; UnknownName with the nearest names."""
    return registry.find("rewrite", name)


def apply(model: nn.Module, name: str, data: Any = None, **options: Any) -> tuple[nn.Module, Plan, dict[str, Any]]:
    """Decide and perform in one call: the rewritten model (the same object), the plan, and the report.

    `data` is a batch or batches: inputs, (inputs, targets) pairs, or mappings of keyword arguments. The report says
    what changed and what it cost on `data`; see `formery.rewrites.report`. CannotRewrite says what stands in the way.
    """
    from .report import Before
    from .rewrite import checked_options

    rewrite = find(name)
    plan = rewrite.decide(model, data, **checked_options(rewrite, options))
    before = Before(model, data)
    rewrite.perform(model, plan)
    return model, plan, before.after(model, rewrite, plan)


def available(model: nn.Module) -> dict[str, str | None]:
    """Every rewrite by name: None where it has something to do on this model, else the reason why not."""
    return {name: find(name).why_not(model) for name in registry.index("rewrite")}
