"""Slimming by latency: a deep, wide net loses what matters least for the time that it takes (EfficientFormer, arXiv
2206.01191, section 4.2 and algorithm 1).

The paper learns how much each block matters by training a supernet, in which every place chooses between doing nothing
and a kind of block: a block's importance is the weight of its kind over that of doing nothing. Here importances and
latencies are given, so that any supernet and any machine may say them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import torch

from ..errors import BadSpec, CannotRun
from ..spec import Place, Spec, build
from .latency import milliseconds

Kind = Literal["maps", "tokens"]
"""What a block is: a block of convolutions, or one with attention. A stage may end in attention, as the net does."""
Action = Literal["drop", "narrow", "convert"]
Latency = Callable[[Kind, int, int], float]
"""(kind, stage, width) -> milliseconds of one block."""
STEP = 16
"""Channels that a stage is narrowed by, and widths are multiples of."""


@dataclass(frozen=True)
class Slot:
    """A block, and how much each kind that could stand in its place matters."""

    kind: Kind
    importance: Mapping[Kind, float]

    @property
    def score(self) -> float:
        return self.importance[self.kind]


@dataclass(frozen=True)
class Stage:
    """Blocks of one width."""

    width: int
    slots: tuple[Slot, ...]

    @property
    def score(self) -> float:
        return sum(slot.score for slot in self.slots)

    def without(self, index: int) -> Stage:
        return replace(self, slots=(*self.slots[:index], *self.slots[index + 1 :]))

    def converted(self, index: int, kind: Kind) -> Stage:
        slot = replace(self.slots[index], kind=kind)
        return replace(self, slots=(*self.slots[:index], slot, *self.slots[index + 1 :]))

    def narrowed(self) -> Stage:
        """With `STEP` channels less, and with them that share of every block's importance."""
        left = (self.width - STEP) / self.width
        slots = tuple(
            replace(slot, importance={kind: left * score for kind, score in slot.importance.items()})
            for slot in self.slots
        )
        return Stage(self.width - STEP, slots)


@dataclass(frozen=True)
class Design:
    """Stages from the image on. BadSpec unless attention stands behind all blocks of maps."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        kinds = [slot.kind for stage in self.stages for slot in stage.slots]
        if kinds != sorted(kinds):
            raise BadSpec("blocks with attention (tokens) stand behind all blocks of maps")
        for stage in self.stages:
            if not stage.slots or stage.width < STEP or stage.width % STEP:
                raise BadSpec(f"a stage has blocks and a width that is a multiple of {STEP}, got {stage.width}")
            if lacking := [slot for slot in stage.slots if slot.kind not in slot.importance]:
                raise BadSpec(f"a block of kind {lacking[0].kind!r} needs an importance of that kind")

    @property
    def score(self) -> float:
        """Importance that is left."""
        return sum(stage.score for stage in self.stages)

    def milliseconds(self, table: Latency) -> float:
        """Of all its blocks."""
        return sum(table(slot.kind, i, stage.width) for i, stage in enumerate(self.stages) for slot in stage.slots)

    def options(self) -> dict[str, Any]:
        """`dims` and `layouts` of a pyramid whose blocks are called `maps` and `tokens`."""
        layouts = [" ".join(slot.kind for slot in stage.slots) for stage in self.stages]
        return {"dims": [stage.width for stage in self.stages], "layouts": layouts}

    def changed(self, number: int, stage: Stage) -> Design:
        return Design((*self.stages[:number], stage, *self.stages[number + 1 :]))


@dataclass(frozen=True)
class Step:
    """What was done, what it cost, and what it brought."""

    action: Action
    stage: int
    lost: float
    """Importance."""
    saved: float
    """Milliseconds."""
    latency: float
    """Milliseconds that are left."""


def slim(design: Design, table: Latency, budget: float) -> tuple[Design, list[Step]]:
    """The design within `budget` milliseconds that greedy steps lead to, and the steps.

    Each step is the cheapest of three, in importance a millisecond: the least important block is dropped; the least
    important stage loses 16 channels; the first block with attention becomes one of maps. A stage keeps one block, and
    a step that saves no time is none. CannotRun where the budget is out of reach.
    """
    steps: list[Step] = []
    now = design.milliseconds(table)
    while now > budget:
        possible = []
        for action, number, after in actions(design):
            left = after.milliseconds(table)
            if left < now:
                step = Step(action, number, design.score - after.score, now - left, left)
                possible.append((step.lost / step.saved, step, after))
        if not possible:
            raise CannotRun(f"{budget:g} ms are out of reach: what cannot be slimmed further takes {now:.3g} ms")
        _, step, design = min(possible, key=lambda candidate: candidate[0])
        steps.append(step)
        now = step.latency
    return design, steps


def actions(design: Design) -> Iterator[tuple[Action, int, Design]]:
    """(action, stage, the design after it) of the three, as far as they are possible."""
    stages = list(enumerate(design.stages))
    spare = [(slot.score, i, j) for i, stage in stages if len(stage.slots) > 1 for j, slot in enumerate(stage.slots)]
    if spare:
        _, i, j = min(spare)
        yield "drop", i, design.changed(i, design.stages[i].without(j))
    if wide := [(stage.score, i) for i, stage in stages if stage.width > STEP]:
        _, i = min(wide)
        yield "narrow", i, design.changed(i, design.stages[i].narrowed())
    attending = [(i, j) for i, stage in stages for j, slot in enumerate(stage.slots) if slot.kind == "tokens"]
    if attending:
        i, j = attending[0]
        if "maps" in design.stages[i].slots[j].importance:
            yield "convert", i, design.changed(i, design.stages[i].converted(j, "maps"))


def measured(blocks: Mapping[Kind, Spec], sides: Sequence[int]) -> Latency:
    """A table of what this machine takes for one block of each kind on a map of each stage's side, for one image.

    Every entry is timed when it is first asked for, and remembered.
    """

    @cache
    def table(kind: Kind, stage: int, width: int) -> float:
        grid = (sides[stage], sides[stage])
        block = build("block", blocks[kind], width, place=Place("block", grid=grid)).eval()
        x = torch.randn(1, *grid, width)
        with torch.no_grad():
            return milliseconds(block, x)

    return table
