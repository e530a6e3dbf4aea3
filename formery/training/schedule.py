"""The learning rate of each step."""

from __future__ import annotations

import math

from .config import TrainConfig


def rate(config: TrainConfig, step: int) -> float:
    """The rate of step `step` (from 0): an even rise over `warmup` steps, then the schedule down to `final_rate`.

    Cosine: arXiv 1608.03983, equation 5, without restarts.
    """
    warmup = config.warmup or 0
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = min(1.0, (step - warmup) / max(1, config.steps - warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * left)
