"""How many steps a fit spends on what, decided once: from the amount of data, or from minutes and measured steps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .settings import Settings

RACE_SHARE, FINAL_SHARE, HEAL_SHARE = 0.3, 0.5, 0.06
"""Of the minutes: for the race, the winner's training, and each repair after shrinking."""
KEEP = 2
"""After each rung of the race, one in `KEEP` candidates goes on."""
NUM_RUNGS = 3


@dataclass(frozen=True)
class Habits:
    """How candidates for these data are trained."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    length: int | None = None
    """Of text windows."""
    label_smoothing: float = 0.0

    def config(self, steps: int, seed: int, *, judgements: int = 12) -> dict[str, Any]:
        """Options of `train`."""
        return {
            "steps": steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "warmup": max(1, steps // 10),
            "eval_every": max(1, steps // judgements),
            "seed": seed,
        }

    def task(self, kind: str) -> dict[str, Any]:
        """The task's spec."""
        return {"kind": kind, "label_smoothing": self.label_smoothing} | (
            {"length": self.length} if self.length else {}
        )


def habits(data: Any) -> Habits:
    """What works for data of this kind and size."""
    if data.modality == "image":
        return Habits(batch_size=64, learning_rate=2e-3, weight_decay=0.05, label_smoothing=0.1)
    small = data.num_bytes("train") < 200_000
    longest = max(8, min(data.num_bytes("train"), data.num_bytes("validation")) // 4)
    length = min(128 if small else 256, longest)
    return Habits(batch_size=16, learning_rate=4e-3, weight_decay=0.1, length=length)


def natural_steps(data: Any, effort: float) -> int:
    """Steps of the winner's training where no minutes are given."""
    if data.modality == "image":
        return max(20, int(effort * min(2000, max(500, 75 * data.steps_per_epoch(64)))))
    return max(20, int(effort * min(700, max(200, data.num_bytes("train") // 800))))


def rungs(last: int, num: int) -> list[int]:
    """Cumulative steps at which candidates are judged, the last being `last`; half the field leaves at each."""
    return [max(1, last // KEEP ** (num - 1 - i)) for i in range(num)]


def race_steps(num_candidates: int, step_seconds: Mapping[str, float] | None, settings: Settings, data: Any) -> int:
    """Steps of the race's last rung."""
    if settings.minutes is None or step_seconds is None:
        return max(8, natural_steps(data, settings.effort) // 8)
    mean = statistics.fmean(step_seconds.values())
    field, steps, before = num_candidates, 0.0, 0.0
    for rung in rungs(1000, NUM_RUNGS):
        steps += field * (rung - before) / 1000
        field, before = max(1, -(-field // KEEP)), rung
    return max(8, int(RACE_SHARE * 60 * settings.minutes / (mean * steps)))


def final_steps(step_seconds: float | None, settings: Settings, data: Any) -> int:
    """Steps of the winner's training."""
    if settings.minutes is None or step_seconds is None:
        return natural_steps(data, settings.effort)
    return max(20, int(FINAL_SHARE * 60 * settings.minutes / step_seconds))
