"""Claims of Atlas about what memories hold: how many pairs, and how well where keys are alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import feature_maps
from ..ops import test_time_memory as rules
from .check import Measured, Progress, check

DIM, VALUES = 16, 8
PASSES = 200


def unrecalled(phi: Tensor, values: Tensor, weights: Tensor) -> float:
    """Squared error of what a matrix gives for keys, over the values' squares."""
    return ((phi @ weights - values).square().mean() / values.square().mean()).item()


def learned(phi: Tensor, values: Tensor) -> float:
    """What is not recalled of n pairs after many passes over all of them: chunks of n, one step at the end of each.

    Momentum makes it a descent that comes near the best matrix there is.
    """
    n = phi.shape[0]
    at = torch.arange(n * PASSES) % n
    k, v = phi.repeat(PASSES, 1)[None, :, None], values.repeat(PASSES, 1)[None, :, None]
    step = 0.9 / torch.linalg.matrix_norm(phi, 2) ** 2
    nothing = torch.zeros(1, len(at), 1)
    gates = rules.Gates(
        nothing,
        nothing + step * (at == n - 1)[None, :, None],
        nothing + math.log(0.95) * (at == 0)[None, :, None],
    )
    rule = rules.Rule(chunk=n)
    memory = rules.fresh(rule, (torch.zeros(1, phi.shape[1], VALUES),), 1, phi.shape[1], VALUES, momentum=True)
    _, memory = rules.trained_memory(k, k, v, gates, memory, rule)
    return unrecalled(phi, values, memory.weights[0][0, 0])


@check
def capacity(seed: int, progress: Progress) -> Measured:
    """Random pairs with keys of 16 numbers in a matrix, of the keys and of their monomials up to degree 2."""
    tables = feature_maps.tables(DIM, 2)
    found: dict[str, dict[str, float]] = {}
    for degree in (1, 2):
        room = feature_maps.width(DIM, 2) if degree == 2 else DIM
        row = found[f"degree {degree}"] = {}
        for n in (room // 2, room, 2 * room, *([153 // 2] if degree == 1 else [])):
            progress(f"degree {degree}, {n} pairs")
            keys, values = F.normalize(torch.randn(n, DIM), dim=-1), torch.randn(n, VALUES)
            phi = keys if degree == 1 else feature_maps.polynomial(keys, feature_maps.taylor(2, keys.dtype), tables)
            row[str(n)] = learned(phi, values)
    ones, twos = found["degree 1"], found["degree 2"]
    passed = max(ones["8"], twos["76"]) < 0.05 and min(ones["32"], twos["306"]) > 0.4 and ones["76"] > 0.7
    passed = passed and all(
        all(b >= a - 0.02 for a, b in zip(list(row.values())[:-1], list(row.values())[1:], strict=True))
        for row in found.values()
    )
    said = "; ".join(
        f"{name}: " + ", ".join(f"{n} pairs {100 * e:.1f} %" for n, e in row.items()) for name, row in found.items()
    )
    note = "The keys have 16 numbers, and their monomials up to degree 2 are 153."
    return Measured(found, passed, f"not recalled, {said}", note=note)


SEEDS = 20
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def correlated(num: int, seed: int, stay: float = 0.9) -> tuple[Tensor, Tensor]:
    """Keys of length 1, each like the one before it, and random values."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(num, DIM, generator=draw)
    walk = [noise[0]]
    for step in noise[1:]:
        walk.append(stay * walk[-1] + math.sqrt(1 - stay**2) * step)
    return F.normalize(torch.stack(walk), dim=-1), torch.randn(num, VALUES, generator=draw)


def one_pass(num: int, seed: int, window: int) -> list[float]:
    """What is not recalled after one pass with the best of the steps, for each draw: rows are draws, heads steps."""
    draws = [correlated(num, seed + i) for i in range(SEEDS)]
    keys, values = (torch.stack(x) for x in zip(*draws, strict=True))
    k, v = (x[:, :, None].expand(-1, -1, len(STEPS), -1) for x in (keys, values))
    nothing = torch.zeros(SEEDS, num, len(STEPS))
    gates = rules.Gates(nothing, nothing + torch.tensor(STEPS))
    rule = rules.Rule(window=window, chunk=1)
    memory = rules.fresh(rule, (torch.zeros(len(STEPS), DIM, VALUES),), SEEDS, DIM, VALUES, momentum=False)
    _, memory = rules.trained_memory(k, k, v, gates, memory, rule)
    found = []
    for row in range(SEEDS):
        errors = [unrecalled(keys[row], values[row], weights) for weights in memory.weights[0][row]]
        found.append(min(error for error in errors if math.isfinite(error)))
    return found


@check
def window(seed: int, progress: Progress) -> Measured:
    """One pass over pairs whose keys are alike, with windows of 1 and 8, each at the best of its steps."""
    found = {}
    for num in (16, 64):
        progress(f"{num} pairs")
        pairs = list(zip(one_pass(num, seed, 8), one_pass(num, seed, 1), strict=True))
        found[str(num)] = {
            "omega": sum(a for a, _ in pairs) / SEEDS,
            "delta": sum(b for _, b in pairs) / SEEDS,
            "better": sum(a < b for a, b in pairs),
        }
    better = found["16"]["better"]
    chance = sum(math.comb(SEEDS, i) for i in range(int(better), SEEDS + 1)) / 2**SEEDS
    passed = chance < 0.01 and found["16"]["omega"] < found["16"]["delta"]
    said = "; ".join(
        f"{n} pairs: {100 * row['omega']:.1f} % not recalled with window 8, {100 * row['delta']:.1f} with 1, "
        f"better in {row['better']} of {SEEDS} draws"
        for n, row in found.items()
    )
    return Measured(found | {"chance": chance}, passed, said)
