"""Claims of GTrXL that need trainings: recalling at the end what was shown at the beginning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model import Model
from ..systems.language import gtrxl as system
from .check import Measured, Progress, check, named
from .series import JUDGED, Draw, fitted

CUES, CHANNELS = 4, 8
SOLVED = 0.9


def delayed(seed: int, length: int) -> Draw:
    """A corridor of `length` steps: one of four cues at its entrance, noise on the way, the turn to take at its end.

    The last step asks; its answer is the cue.
    """

    def draw(step: int, batch: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(1_000_003 * seed + step)
        cues = torch.randint(0, CUES, (batch,), generator=g)
        x = 0.3 * torch.randn(batch, length, CHANNELS, generator=g)
        x[:, 0, :CUES] = F.one_hot(cues, CUES).float()
        x[:, -1, CUES] = 1.0
        return x, cues

    return draw


def at_the_end(scores: Tensor, cues: Tensor) -> Tensor:
    """The loss of the last step's answer."""
    return F.cross_entropy(scores[:, -1], cues)


def _spec(gate: str | None, memory: int, depth: int = 2, segment: int = 8) -> dict[str, Any]:
    sizes: dict[str, Any] = {"dim": 32, "depth": depth, "heads": 2, "head_dim": 16, "hidden": 64}
    more: dict[str, Any] = {"segment": segment, "in_chans": CHANNELS, "num_classes": CUES, "gate": gate}
    return system.spec(**sizes, **more, memory=memory, through=True)


def _accuracy(model: Model, draw: Draw) -> float:
    x, cues = draw(JUDGED, 400)
    with torch.no_grad():
        return float((model(x)[:, -1].argmax(-1) == cues).float().mean())


@check
def recall(seed: int, progress: Progress) -> Measured:
    """Corridors of 32, 64 and 128 steps with a memory as long, and with one of which all layers together fall short."""
    found: dict[str, dict[str, float]] = {"memory": {}, "window": {}}
    for length in (32, 64, 128):
        for name in found:
            # Two layers reach back twice: a quarter of the way each keeps the cue out of sight.
            memory = length if name == "memory" else length // 4 - 8
            draw, tell = delayed(seed, length), named(f"{length} steps, {name}", progress)
            model = fitted(_spec("gru", memory), draw, steps=STEPS, seed=seed, progress=tell, loss=at_the_end)
            found[name][str(length)] = _accuracy(model, draw)
    passed = min(found["memory"].values()) >= SOLVED and max(found["window"].values()) <= 0.4
    said = "; ".join(
        f"{name} " + " / ".join(f"{100 * v:.1f}" for v in row.values()) + " %" for name, row in found.items()
    )
    return Measured(found, passed, f"at 32 / 64 / 128 steps: {said} (chance 25)")


STEPS = 250


@check
def learning_rates(seed: int, progress: Progress) -> Measured:
    """A corridor of 32 steps at six learning rates, four layers: gates against the post-norm Transformer-XL."""
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    found: dict[str, dict[str, float]] = {}
    draw = delayed(seed, 32)
    for name, gate in (("GTrXL", "gru"), ("TrXL", None)):
        for rate in rates:
            spec, tell = _spec(gate, 32, depth=4, segment=32), named(f"{name} at {rate:g}", progress)
            model = fitted(spec, draw, steps=200, seed=seed, progress=tell, loss=at_the_end, learning_rate=rate)
            found.setdefault(name, {})[f"{rate:g}"] = _accuracy(model, draw)
    solved = {name: sum(value >= SOLVED for value in row.values()) for name, row in found.items()}
    passed = solved["GTrXL"] > solved["TrXL"]
    said = f"GTrXL solves {solved['GTrXL']} of {len(rates)} settings, post-norm TrXL {solved['TrXL']}"
    note = (
        ""
        if passed
        else "Supervised and four layers deep, the task is kinder to the post-norm net than reinforcement is."
    )
    return Measured({"accuracy": found, "solved": solved}, passed, said, "TrXL near random, GTrXL robust", note)
