"""What a rewrite changed, and what that cost on the data given: measured before and after, never assumed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model import Model
from .batches import batches_of, inputs_of, looking, run, targets_of
from .rewrite import Approximate, Exact, Plan, Rewrite

KEPT = 2**26
"""Bytes of outputs that are remembered at most, to be compared with those of the rewritten model."""


class Before:
    """A model's figures before a rewrite; `after` sets the rewritten model's beside them.

    The report is plain data: `parameters` and `macs` (of a batch item; absent where they cannot be counted) before and
    after; with data, `difference` (largest change of an output, in units of the largest output), `agreement` (share of
    equal predictions) and `score`: `accuracy` where batches have targets, `perplexity` where the model predicts tokens.
    """

    def __init__(self, model: nn.Module, data: Any = None) -> None:
        self.batches = [] if data is None else batches_of(data)
        self.parameters = num_parameters(model)
        self.macs = macs_of(model, self.batches)
        self.outputs: list[Tensor] = []
        self.score = _Score(model)
        with looking(model):
            for batch in self.batches:
                output = run(model, batch)
                self.score.add(output, batch)
                if sum(o.numel() * o.element_size() for o in self.outputs) < KEPT:
                    self.outputs.append(output)

    def after(self, model: nn.Module, rewrite: type[Rewrite], plan: Plan) -> dict[str, Any]:
        """The report on the rewritten model."""
        promise = "exact" if issubclass(rewrite, Exact) else "approximate" if issubclass(rewrite, Approximate) else None
        report: dict[str, Any] = {
            "rewrite": rewrite.kind,
            "promise": promise,
            "steps": len(plan["steps"]),
            "refused": plan.get("refused", []),
            "parameters": {"before": self.parameters, "after": num_parameters(model)},
        }
        if self.macs is not None:
            report["macs"] = {"before": self.macs, "after": macs_of(model, self.batches)}
        if not self.batches:
            return report
        score, compared = _Score(model), _Compared()
        with looking(model):
            for number, batch in enumerate(self.batches):
                output = run(model, batch)
                score.add(output, batch)
                if number < len(self.outputs):
                    compared.add(self.outputs[number], output)
        report["compared_batches"] = len(self.outputs)
        report["difference"], report["agreement"] = compared.difference, compared.agreement
        if self.score.name is not None:
            report["score"] = {"name": self.score.name, "before": self.score.value, "after": score.value}
        return report


class _Compared:
    """Old outputs beside new ones."""

    def __init__(self) -> None:
        self.worst, self.scale, self.equal, self.count = 0.0, 0.0, 0, 0

    def add(self, old: Tensor, new: Tensor) -> None:
        self.worst = max(self.worst, (new - old).abs().max().item())
        self.scale = max(self.scale, old.abs().max().item())
        same = old.argmax(-1) == new.argmax(-1)
        self.equal, self.count = self.equal + int(same.sum()), self.count + same.numel()

    @property
    def difference(self) -> float:
        return self.worst / self.scale if self.scale else self.worst

    @property
    def agreement(self) -> float:
        return self.equal / max(1, self.count)


class _Score:
    """Accuracy where there are targets (one class an item), perplexity where tokens are predicted."""

    def __init__(self, model: nn.Module) -> None:
        head = getattr(model, "head", None)
        self.predicts_tokens = bool(getattr(head, "causal", False)) if isinstance(model, Model) else _is_causal(model)
        self.total, self.count = 0.0, 0

    def add(self, output: Tensor, batch: Any) -> None:
        if self.predicts_tokens:
            ids = inputs_of(batch).to(output.device)
            losses = F.cross_entropy(output[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum")
            self.total, self.count = self.total + losses.item(), self.count + ids[:, 1:].numel()
            return
        targets = targets_of(batch)
        if targets is not None and targets.shape == output.shape[:-1] and not targets.is_floating_point():
            self.total += float((output.argmax(-1) == targets.to(output.device)).sum())
            self.count += targets.numel()

    @property
    def name(self) -> str | None:
        if not self.count:
            return None
        return "perplexity" if self.predicts_tokens else "accuracy"

    @property
    def value(self) -> float:
        mean = self.total / self.count
        return math.exp(min(mean, 700.0)) if self.predicts_tokens else mean


def _is_causal(model: nn.Module) -> bool:
    return type(model).__name__.endswith("ForCausalLM")


def num_parameters(model: nn.Module) -> int:
    """Numbers in the parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def macs_of(model: nn.Module, batches: list[Any]) -> int | None:
    """Multiply-accumulates of one item of the first batch; None without data."""
    if not batches:
        return None
    from ..measure import count_macs

    inputs = inputs_of(batches[0])[:1]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return count_macs(model, inputs.to(device)).per_item
