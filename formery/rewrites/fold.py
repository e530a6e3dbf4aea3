"""Fold: what only scales, shifts or centres moves into the linears and convolutions beside it. Outputs stay equal.

Five folds, in this order, the last two only if asked for:

- `scales`: a layer scale into the layer before it, weights and bias, or into the norm before it;
- `batch_norms`: in evaluation a batch norm is an affine map, which goes back into the linear or convolution it follows,
  or forward into the linears and 1x1 convolutions that read it, never across zero padding; with `classifier` that of
  a head that norms, then takes the mean, too: features then come out without it;
- `shifts`: what a global response norm adds last, into the dense layer that reads it;
- `affine`: weight and bias of a norm into the linears that read it;
- `recentre`: in a residual stream that is written by linears, convolutions and tables alone, and read through layer
  norms alone, the mean over the channels is free: it is taken out of everything that writes, and the layer norms
  become RMS norms with the same weight, bias and eps (arXiv 2305.14858). Whether that is faster is the machine's
  matter: torch has one kernel for a layer norm on CPUs and composes an RMS norm of several.

Equal are the outputs of `forward` in evaluation. After recentring, features tapped from the raw stream differ from the
old ones by each token's mean over the channels; those that a norm has passed do not.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import CannotRewrite
from .fold_steps import STEP, AnyStep, perform_step
from .foldable import chosen
from .rewrite import Exact, Plan, parsed


class Fold(Exact):
    """Moves layer scales, batch norms and means into the linears and convolutions beside them; outputs stay equal.

    `untie` lets a model whose head shares the stem's table be recentred, at the cost of a second table, where the final
    norm's weight stands in between. A `classifier` that a batch norm was folded into cannot be exchanged for another.
    """

    kind = "fold"

    @classmethod
    def decide(  # type: ignore[override]  # the options by name
        cls,
        model: nn.Module,
        data: Any = None,
        *,
        scales: bool = True,
        batch_norms: bool = True,
        classifier: bool = False,
        shifts: bool = True,
        affine: bool = False,
        recentre: bool = False,
        untie: bool = False,
    ) -> Plan:
        """What can be folded, and what not and why (`refused`). Looks at structure alone; `data` is not needed."""
        cls.in_order(model)
        options = {"scales": scales, "batch_norms": batch_norms, "classifier": classifier, "shifts": shifts}
        options |= {"affine": affine, "recentre": recentre, "untie": untie}
        steps, refused = chosen(model, **options)
        return cls.plan(options, steps, refused)

    @classmethod
    def why_not(cls, model: nn.Module) -> str | None:
        try:
            plan = cls.decide(model, affine=True, recentre=True)
        except CannotRewrite as error:
            return str(error)
        if plan["steps"]:
            return None
        reasons = [f"{r['where']}: {r['why']}" for r in plan["refused"]]
        return f"nothing to fold; {reasons[0]}" if reasons else "nothing to fold"

    @classmethod
    def steps_of(cls, plan: Plan) -> list[Any]:
        return parsed(cls.kind, STEP, plan["steps"])

    @classmethod
    def do(cls, model: nn.Module, steps: list[AnyStep]) -> None:
        for step in steps:
            perform_step(model, step)
