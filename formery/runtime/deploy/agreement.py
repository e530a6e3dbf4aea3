"""How near two runs of one model are, on images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .forms import Runner

BATCH = 16


@dataclass(frozen=True)
class Agreement:
    """Of a form with the model as it came."""

    difference: float
    """Largest change of a score, in units of the largest score."""
    top1: float
    """Share of images whose likeliest class is the same."""
    images: int


def outputs(run: Runner, images: Tensor) -> Tensor:
    """(N, classes) scores, a few images at a time."""
    with torch.no_grad():
        return torch.cat([run(batch).float() for batch in images.split(BATCH)])


def agreement(expected: Tensor, found: Tensor) -> Agreement:
    """Of two sets of scores (N, classes); differences that are no numbers count as infinite."""
    scale = max(expected.abs().max().item(), 1e-12)
    worst = (found.double() - expected.double()).abs().max().item() / scale
    same = float((found.argmax(-1) == expected.argmax(-1)).double().mean())
    return Agreement(worst if worst == worst else float("inf"), same, len(expected))
