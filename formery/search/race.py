"""Successive halving (arXiv 1502.07943): all candidates train a little, the better half goes on, and so forth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .budget import KEEP

Score = Callable[[str, int, int], dict[str, Any]]
"""(candidate, steps so far, rung) -> its result with "score", higher is better, and "params"."""


@dataclass(frozen=True)
class Rung:
    """One round of a race."""

    steps: int
    results: dict[str, dict[str, Any]]
    kept: list[str]


def race(names: Sequence[str], steps: Sequence[int], train: Score) -> list[Rung]:
    """Rounds until the last number of steps; the first of the last round's `kept` is the winner.

    Equal scores are settled by fewer parameters, then by the order of `names`: never by a clock.
    """
    field, rounds = list(names), []
    for number, until in enumerate(steps):
        results = {name: train(name, until, number) for name in field}
        ranked = ranking(field, results)
        last = number == len(steps) - 1
        kept = ranked if last else ranked[: max(1, -(-len(ranked) // KEEP))]
        rounds.append(Rung(until, results, kept))
        field = kept
    return rounds


def ranking(names: Sequence[str], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names from best to worst."""
    order = list(names)
    return sorted(order, key=lambda name: (-results[name]["score"], results[name]["params"], order.index(name)))
