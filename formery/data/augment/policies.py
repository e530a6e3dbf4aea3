"""Which operations an image gets, and how much of each: RandAugment, TrivialAugment, colour jitter.

RandAugment (arXiv 1909.13719) applies some operations one after another, all of one magnitude; TrivialAugment (arXiv
2103.10158) one, of any magnitude. Amounts grow with the magnitude, 10 is the most (timm's "increasing" ones).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import BadSpec
from .. import chance
from .operations import OPERATIONS

NAMES = tuple(OPERATIONS)
RAND, TRIVIAL = "rand-m9-mstd0.5", "trivial"
MOST = 10.0
SIGNED = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "colour", "contrast", "sharpness"}
SHIFT = 32
"""Pixels that TrivialAugment moves an image by at most."""

Step = tuple[NDArray[np.int64], Tensor]
"""(number of the operation, amount) for each image, (B,) each."""


@dataclass(frozen=True)
class Policy:
    """`layers` operations one after another, each with probability `chance`, of magnitude Normal(magnitude, spread)."""

    trivial: bool = False
    layers: int = 2
    magnitude: float = 9.0
    spread: float = 0.0
    chance: float = 0.5

    def steps(self, num: int, size: tuple[int, int], seed: int, step: int) -> Iterator[Step]:
        """What is done to `num` images of `size` (H, W), one operation after another."""
        drawn = chance.uniform(seed, "policy", step, self.layers * 4 * num).reshape(self.layers, 4, num)
        spread = chance.normal(seed, "policy spread", step, self.layers * num).reshape(self.layers, num)
        for (which, sign, use, strength), noise in zip(drawn, spread, strict=True):
            chosen = np.floor(which * len(NAMES)).astype(np.int64)
            if self.trivial:
                level = np.floor(strength * 31) / 30
            else:
                level = np.clip(self.magnitude + self.spread * noise, 0, MOST) / MOST
                chosen[use >= self.chance] = NAMES.index("identity")
            table = _trivial(level, size) if self.trivial else _rand(level)
            signs = np.where(sign < 0.5, -1.0, 1.0)
            amounts = np.zeros(num)
            for number, name in enumerate(NAMES):
                if name in table:
                    here = chosen == number
                    amounts[here] = (table[name] * (signs if name in SIGNED else 1.0))[here]
            yield chosen, torch.from_numpy(amounts).float()


def _rand(level: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Amounts of RandAugment for levels from 0 to 1."""
    colours = dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), 0.9 * level)
    moves = dict.fromkeys(("translate_x", "translate_y"), 150 / 331 * level)
    shears = dict.fromkeys(("shear_x", "shear_y"), 0.3 * level)
    return colours | moves | shears | {"rotate": 30 * level, "posterize": np.rint(8 - 4 * level), "solarize": 1 - level}


def _trivial(level: NDArray[np.float64], size: tuple[int, int]) -> dict[str, NDArray[np.float64]]:
    """Amounts of the wide TrivialAugment; shifts of at most 32 pixels, and no more than RandAugment's share."""
    colours = dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), 0.99 * level)
    shears = dict.fromkeys(("shear_x", "shear_y"), 0.99 * level)
    sides = zip(("translate_y", "translate_x"), size, strict=True)
    moves = {name: min(150 / 331, SHIFT / side) * level for name, side in sides}
    return (
        colours | moves | shears | {"rotate": 135 * level, "posterize": np.rint(8 - 6 * level), "solarize": 1 - level}
    )


def policy_of(text: str) -> Policy:
    """`trivial`, `rand`, or RandAugment as timm writes it: `rand-m9-n2-mstd0.5-p0.5-inc1`; BadSpec for anything else.

    m: magnitude of 10 (10 unless given), n: operations (2), mstd: its deviation (0), p: of each operation (0.5).
    """
    if text == TRIVIAL:
        return Policy(trivial=True, layers=1)
    kind, *parts = (RAND if text == "rand" else text).split("-")
    if kind != "rand":
        raise BadSpec(f"policy {text!r} is none: give trivial, rand, or timm's form {RAND}")
    found = {"m": 10.0, "n": 2.0, "mstd": 0.0, "p": 0.5, "inc": 1.0}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        if match is None or match[1] not in found:
            raise BadSpec(f"policy {text!r}: {part!r} is none of {', '.join(found)} with a number")
        found[match[1]] = float(match[2])
    if found["inc"] != 1:
        raise BadSpec(f"policy {text!r}: operations grow with the magnitude here, which is inc1; leave inc out")
    if not 0 <= found["m"] <= MOST or not found["n"].is_integer() or not 1 <= found["n"] <= 14 or found["p"] > 1:
        raise BadSpec(f"policy {text!r}: m lies in 0..10, n is a whole number from 1 to 14, p lies in 0..1")
    return Policy(False, int(found["n"]), found["m"], found["mstd"], found["p"])


JITTERS = ("brightness", "contrast", "colour")


def jitter_steps(num: int, strength: float, seed: int, step: int) -> Iterator[Step]:
    """Brightness, contrast, saturation in an order of each image's own, by factors in [1 - strength, 1 + strength]."""
    drawn = chance.uniform(seed, "jitter", step, 6 * num).reshape(2, 3, num)
    order = np.argsort(drawn[0], axis=0)
    numbers = np.array([NAMES.index(name) for name in JITTERS])
    for place in order:
        amount = np.take_along_axis(drawn[1], place[None], 0)[0]
        yield numbers[place], torch.from_numpy(strength * (2 * amount - 1)).float()
