"""Drop: blocks, mixers or channel mixers that hardly turn the residual stream go (LLM-Drop, arXiv 2406.15786).

A unit is a sublayer with its norm and residual, or a whole block. Its importance is scored on calibration data: 1 minus
the mean cosine of the stream before and after it (`formery.rewrites.similarity`). What is least important is taken
away, with its parameters and its part of a stream's state; nothing is masked, nothing retrained.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from torch import nn

from ..errors import BadSpec, CannotRewrite
from . import similarity
from .anatomy import Anatomy, of
from .batches import batches_of
from .removal import Removal, remove
from .rewrite import Approximate, Plan, Refusal, parsed

Unit = Literal["block", "mixer", "channel", "joint"]
BETWEEN = "it carries what one stream tells another: how little it turns the tokens that pass by says nothing of it"
_STEP: TypeAdapter[Removal] = TypeAdapter(Removal)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit that may go."""

    path: str
    block: str
    sublayers: tuple[str, ...]


class Drop(Approximate):
    """Takes away the blocks, mixers or channel mixers that turn the residual stream least on calibration data.

    Units: `block`, `mixer`, `channel`, or `joint` (mixers and channel mixers ranked together).
    """

    kind = "drop"

    @classmethod
    def decide(  # type: ignore[override]  # the options by name
        cls,
        model: nn.Module,
        data: Any = None,
        *,
        unit: Unit = "mixer",
        count: int | None = None,
        ratio: float | None = None,
        kinds: list[str] | None = None,
        iterative: bool = False,
        consecutive: bool = False,
        residual: bool = True,
        published_off_by_one: bool = False,
    ) -> Plan:
        """Which `count` units (or which `ratio` of them, rounded down) matter least on `data`.

        `kinds` restricts mixers and channel mixers to some kinds ("attention"). All are scored on the whole model, or,
        `iterative`, again after each one has gone. `consecutive` drops one run of blocks, the one whose input and
        output are most alike; the authors' code looks at runs one block longer than what it drops, which
        `published_off_by_one` repeats. With `residual` false, what a sublayer reads and gives is compared instead of
        the stream: the paper's ablation.
        """
        cls.in_order(model)
        if data is None:
            raise CannotRewrite("drop ranks by what units do to data; give it some")
        _check_options(unit, count, ratio, kinds, iterative, consecutive, residual, published_off_by_one)
        batches = batches_of(data)
        anatomy = of(model)
        candidates, refused = _candidates(anatomy, unit, kinds)
        number = _number(len(candidates), unit, count, ratio)
        options = {
            "unit": unit, "count": number, "kinds": kinds, "iterative": iterative, "consecutive": consecutive,
            "residual": residual, "published_off_by_one": published_off_by_one,
        }  # fmt: skip
        if consecutive:
            chosen, scores = _run_of_blocks(model, anatomy, batches, candidates, number, published_off_by_one)
        elif iterative:
            chosen, scores = _one_by_one(model, batches, candidates, unit, kinds, number, residual)
        else:
            scores = _importances(model, anatomy, batches, candidates, unit, residual)
            chosen = sorted(candidates, key=lambda c: scores[c.path])[:number]
        steps = [Removal(block=c.block, sublayers=list(c.sublayers)) for c in chosen]
        return cls.plan(options, steps, refused, importance=scores)

    @classmethod
    def why_not(cls, model: nn.Module) -> str | None:
        try:
            cls.in_order(model)
            if sum(bool(block.sublayers) for _, block in of(model).blocks()) < 2:
                return "it has fewer than two blocks"
        except CannotRewrite as error:
            return str(error)
        return None

    @classmethod
    def steps_of(cls, plan: Plan) -> list[Any]:
        return parsed(cls.kind, _STEP, plan["steps"])

    @classmethod
    def do(cls, model: nn.Module, steps: list[Any]) -> None:
        remove(model, steps)


def _check_options(
    unit: Unit, count: int | None, ratio: float | None, kinds: list[str] | None,
    iterative: bool, consecutive: bool, residual: bool, off_by_one: bool,
) -> None:  # fmt: skip
    if unit not in ("block", "mixer", "channel", "joint"):
        raise BadSpec(f"unit is block, mixer, channel or joint, got {unit!r}")
    if (count is None) == (ratio is None):
        raise BadSpec("drop takes a count or a ratio of units: give one of them")
    if ratio is not None and not 0 < ratio < 1:
        raise BadSpec(f"ratio is above 0 and below 1, got {ratio}")
    if kinds is not None and unit == "block":
        raise BadSpec("kinds chooses among mixers and channel mixers; leave it out where the unit is block")
    if consecutive and (unit != "block" or iterative):
        raise BadSpec("consecutive goes with unit='block' and without iterative: one run of blocks is chosen at once")
    if off_by_one and not consecutive:
        raise BadSpec("published_off_by_one is about consecutive blocks; give consecutive=True, or leave it out")
    if not residual and unit == "block":
        raise BadSpec("residual=False compares what a sublayer reads and gives; blocks are compared by the stream")


def _candidates(anatomy: Anatomy, unit: Unit, kinds: list[str] | None) -> tuple[list[Candidate], list[Refusal]]:
    if unit == "block":
        present = [(stage, block) for stage, block in anatomy.blocks() if block.sublayers]
        wider = "it gives out more channels than it takes in, so the stream cannot pass it by; drop its sublayers"
        return [
            Candidate(block.path, block.path, tuple(sub.name for sub in block.sublayers))
            for stage, block in present
            if block.keeps_width and not stage.between
        ], [
            Refusal(what="block", where=block.path, why=BETWEEN if stage.between else wider)
            for stage, block in present
            if stage.between or not block.keeps_width
        ]
    found, refused = [], []
    for stage, block in anatomy.blocks():
        for sub in block.sublayers:
            if unit not in ("joint", sub.role) or (kinds is not None and sub.kind not in kinds):
                continue
            if stage.between:
                refused.append(Refusal(what=sub.role, where=sub.path, why=BETWEEN))
            elif block.separable:
                found.append(Candidate(sub.path, block.path, (sub.name,)))
            else:
                why = f"in the scheme {block.scheme!r} it is no residual branch of its own; drop blocks (--unit block)"
                refused.append(Refusal(what=sub.role, where=sub.path, why=why))
    if not found:
        if refused:
            raise CannotRewrite(f"{refused[0].where}: {refused[0].why}")
        there = sorted({sub.kind for _, _, sub in anatomy.sublayers() if unit in ("joint", sub.role)})
        what = "sublayer" if unit == "joint" else unit
        asked = f" of kind {' or '.join(kinds)}" if kinds else ""
        raise CannotRewrite(f"this model has no {what}{asked}; it has {', '.join(there) or 'none'}")
    return found, refused


def _number(total: int, unit: Unit, count: int | None, ratio: float | None) -> int:
    number = count if count is not None else int(total * (ratio or 0))
    what = {"joint": "sublayers"}.get(unit, f"{unit}s")
    if number < 1:
        raise BadSpec(
            f"count {number} of {total} {what} drops nothing; give at least 1, or a ratio of at least {1 / total:.3f}"
        )
    if number >= total:
        raise CannotRewrite(f"count {number} would leave none of {total} {what}; drop at most {total - 1}")
    return number


def _importances(
    model: nn.Module, anatomy: Anatomy, batches: list[Any], candidates: list[Candidate], unit: Unit, residual: bool
) -> dict[str, float]:
    if unit == "block":
        found = similarity.of_blocks(model, anatomy, batches)
    elif residual:
        found = similarity.of_sublayers(model, anatomy, batches)
    else:
        found = similarity.of_outputs(model, anatomy, batches)
    return {c.path: 1 - found[c.path] for c in candidates}


def _run_of_blocks(
    model: nn.Module, anatomy: Anatomy, batches: list[Any], candidates: list[Candidate], number: int, off_by_one: bool
) -> tuple[list[Candidate], dict[str, float]]:
    """The run of `number` blocks of one stage whose input and output are most alike."""
    spans = similarity.of_spans(model, anatomy, batches)
    compared = number + off_by_one
    scores = {path: 1 - values[compared - 1] for path, values in spans.items() if len(values) >= compared}
    if not scores:
        longest = max(len(values) for values in spans.values())
        raise CannotRewrite(
            f"no stage has a run of {compared} blocks; the longest has {longest}, drop fewer or not consecutive"
        )
    first = min(scores, key=lambda path: scores[path])
    paths = [c.path for c in candidates]
    start = paths.index(first)
    return candidates[start : start + number], scores


def _one_by_one(
    model: nn.Module, batches: list[Any], candidates: list[Candidate], unit: Unit, kinds: list[str] | None,
    number: int, residual: bool,
) -> tuple[list[Candidate], dict[str, float]]:  # fmt: skip
    """The least important one, then the least important of the model without it, and so on."""
    smaller = copy.deepcopy(model)
    left, chosen, scores = list(candidates), [], {}
    for _ in range(number):
        anatomy = of(smaller)
        # Others' models count their blocks anew when one goes; order tells which is which.
        present, _ = _candidates(anatomy, unit, kinds)
        found = _importances(smaller, anatomy, batches, present, unit, residual)
        least = min(range(len(present)), key=lambda i: found[present[i].path])
        remove(smaller, [Removal(block=present[least].block, sublayers=list(present[least].sublayers))])
        scores[left[least].path] = found[present[least].path]
        chosen.append(left.pop(least))
    return chosen, scores
