"""Probes of single claims: exchanges that compose, exchanges to be looked up before, and several needles in hay.

Recorded figures hang on their streams of random numbers: names and order of what is drawn stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.probes.probe import Probe, integers, nothing_counts, orders
from ..data.probes.tracking import composed, composition

PERMUTATIONS = ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1))
"""Of three things: nothing, the three exchanges of two, the two turns."""
AFTER = composition(PERMUTATIONS)
KEYS, NEEDLES, VALUES = 8, 4, 8
"""Keys there are, of which a haystack holds some with a value each."""
HAY = 8
"""Kinds of hay."""


def exchanges(*, sizes: Sequence[int] = (16, 32), trained: Sequence[int] = (4, 8, 16)) -> Probe:
    """Exchanges of two of three things (ids 1 to 3), and the permutation that they compose to (0 to 5). A size is a
    length."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        numbers = 1 + integers(seed, "exchanges", step, (batch, size), 3)
        return numbers, composed(numbers, AFTER)

    return Probe("exchanges", 6, draw, tuple(sizes), tuple(trained), "tokens", 1 / 6)


def recalled(*, sizes: Sequence[int] = (6,), trained: Sequence[int] = (1, 2, 4, 6)) -> Probe:
    """A list of all keys (ids from 6 on), each followed by an exchange (1 to 3); then keys, and the permutation that
    the exchanges of these compose to, from the first key to each. A size is how many keys are asked for."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        order = orders(seed, "recalled order", step, batch, KEYS)
        exchange = 1 + integers(seed, "recalled exchanges", step, (batch, KEYS), 3)
        listed = torch.stack([6 + order, exchange], dim=2).flatten(1)
        of_key = torch.zeros_like(exchange).scatter(1, order, exchange)
        asked = integers(seed, "recalled asked", step, (batch, size), KEYS)
        targets = torch.cat([nothing_counts(listed), composed(of_key.gather(1, asked), AFTER)], dim=1)
        return torch.cat([listed, 6 + asked], dim=1), targets

    return Probe(
        "recalled", 6 + KEYS, draw, tuple(sizes), tuple(trained), "keys asked for", 1 / 6, lambda n: 2 * KEYS + n
    )


def needles(*, sizes: Sequence[int] = (32, 64, 128, 256), trained: Sequence[int] = (16, 32)) -> Probe:
    """Hay with needles, a key and its value each; the last tokens are those keys in another order, the targets there
    their values. Ids: hay, then keys, then values. A size is a length."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        places = 2 * orders(seed, "needle places", step, batch, (size - NEEDLES) // 2, most=NEEDLES)
        keys = HAY + orders(seed, "needle keys", step, batch, KEYS, most=NEEDLES)
        values = HAY + KEYS + integers(seed, "needle values", step, (batch, NEEDLES), VALUES)
        ids = integers(seed, "needle hay", step, (batch, size), HAY)
        ids.scatter_(1, places, keys).scatter_(1, places + 1, values)
        asked = orders(seed, "needle asked", step, batch, NEEDLES)
        ids[:, -NEEDLES:] = keys.gather(1, asked)
        targets = nothing_counts(ids)
        targets[:, -NEEDLES:] = values.gather(1, asked)
        return ids, targets

    return Probe("needles", HAY + KEYS + VALUES, draw, tuple(sizes), tuple(trained), "tokens", 1 / VALUES)
