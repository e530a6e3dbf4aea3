"""The claim of TCNCA that needs trainings: associations recalled across chunks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.probes.probe import integers, orders
from ..model import Model
from ..systems.language import tcnca as system
from .check import Measured, Progress, check, named
from .series import JUDGED, Draw, fitted

KEYS = VALUES = 10
PAIRS, LENGTH, CHUNK = 4, 64, 16
VOCAB = KEYS + VALUES + 1


def asked(seed: int) -> Draw:
    """Pairs of a key and its value in the first of 64 tokens, filling, and those keys again, in another order, as the
    last tokens.

    The last chunk holds no pair, so that attention inside it alone cannot know the answers, the keys' values.
    """

    def draw(step: int, batch: int) -> tuple[Tensor, Tensor]:
        keys = orders(seed, "keys", step, batch, KEYS, most=PAIRS)
        values = KEYS + integers(seed, "values", step, (batch, PAIRS), VALUES)
        ids = torch.full((batch, LENGTH), VOCAB - 1)
        ids[:, : 2 * PAIRS : 2], ids[:, 1 : 2 * PAIRS : 2] = keys, values
        which = orders(seed, "asked", step, batch, PAIRS)
        ids[:, -PAIRS:] = keys.gather(1, which)
        return ids, values.gather(1, which)

    return draw


def at_the_end(scores: Tensor, answers: Tensor) -> Tensor:
    """The loss of the answers at the last tokens."""
    return F.cross_entropy(scores[:, -PAIRS:].flatten(0, 1), answers.flatten())


def spec(move: Any, chunk: int = CHUNK) -> dict[str, Any]:
    """Two layers of width 48."""
    sizes: dict[str, Any] = {"dim": 48, "depth": 2, "shared": 24, "values": 96, "hidden": 96, "vocab": VOCAB}
    return system.spec(**sizes, chunk=chunk, move=move)


@check
def associations(seed: int, progress: Progress) -> Measured:
    """Convolutions and chunks, the average and chunks, chunks alone: 240 steps each."""
    convolutions = {"kind": "temporal_convolution", "width": 5, "factor": 2, "layers": 5}
    nets: dict[str, dict[str, Any]] = {
        "TCNCA": spec(convolutions),
        "Mega": spec({"kind": "damped_average", "dims": 16}),
        "chunks alone": spec(None),
    }
    draw = asked(seed)
    found: dict[str, float] = {}
    for name, net in nets.items():
        model = fitted(
            net, draw, steps=STEPS, seed=seed, progress=named(name, progress), loss=at_the_end, batch_size=32,
            learning_rate=5e-3,
        )  # fmt: skip
        found[name] = right(model, draw)
    passed = found["TCNCA"] >= 0.95 and found["chunks alone"] <= 0.4 and found["TCNCA"] >= found["Mega"] - 0.02
    said = ", ".join(f"{name} {100 * value:.1f} %" for name, value in found.items())
    note = "" if passed else f"{STEPS} steps at width 48: what is moved is moved by place; 1,000 steps stall alike."
    return Measured(
        found, passed, f"{said} (guessing among the values seen 25, among all 10)", "equal or better than Mega", note
    )


STEPS = 240


def right(model: Model, draw: Draw) -> float:
    """Share of right answers on 1,000 fresh sequences."""
    ids, answers = draw(JUDGED, 1000)
    with torch.no_grad():
        return float((model(ids)[:, -PAIRS:].argmax(-1) == answers).float().mean())
