"""Random numbers as pure functions of (seed, stream, step).

Philox (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011) is a counter-based generator: the key is the
seed and the stream's name, the top word of the counter is the step, so any step can be drawn without drawing those
before it. Only its raw words are used: these are fixed by the algorithm, whereas numpy's distributions may change
between releases.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


def words(seed: int, stream: str, step: int, num: int) -> NDArray[np.uint64]:
    """`num` uniform 64-bit words; any integer is a seed, `step` >= 0."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    key = np.array([seed % 2**64, name], dtype=np.uint64)
    counter = np.array([0, 0, 0, step], dtype=np.uint64)
    drawn: NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(num)
    return drawn


def uniform(seed: int, stream: str, step: int, num: int) -> NDArray[np.float64]:
    """`num` numbers in [0, 1) with 53 random bits each."""
    return (words(seed, stream, step, num) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(seed: int, stream: str, step: int, num: int, below: int) -> NDArray[np.int64]:
    """`num` integers in [0, below), for `below` up to 2^53 (the bias is below 2^-53 * `below`)."""
    return np.floor(uniform(seed, stream, step, num) * below).astype(np.int64)


def normal(seed: int, stream: str, step: int, num: int) -> NDArray[np.float64]:
    """`num` standard normal numbers, by Box and Muller."""
    radius, angle = uniform(seed, stream, step, 2 * num).reshape(2, num)
    drawn: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return drawn


@lru_cache(maxsize=8)
def permutation(seed: int, stream: str, step: int, num: int) -> NDArray[Any]:
    """The order of `num` items (int64, read-only); a pure function, kept for the steps of one epoch."""
    order = np.argsort(words(seed, stream, step, num), kind="stable")
    order.setflags(write=False)
    return order
