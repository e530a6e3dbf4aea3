"""What a model must beat: compression and counting for text, the most frequent class for images."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import BadData, BadSpec

if TYPE_CHECKING:
    from .images import ImageData
    from .text import TextData

LARGEST_DICTIONARY = 2**26


def text_baselines(data: TextData, part: str = "test") -> dict[str, float]:
    """Bits per byte of the validation or test part by xz alone, xz after the training part, and Markov models of it."""
    train, test = data.part("train"), data.part(part)
    return {
        "xz": xz(test),
        "xz_primed": xz_primed(test, train),
        "markov_3": markov(test, train, 3),
        "markov_5": markov(test, train, 5),
    }


def xz(text: bytes) -> float:
    """Bits per byte of LZMA2 at its strongest, without the container's header."""
    return 8 * _compressed(text) / _length(text)


def xz_primed(text: bytes, train: bytes) -> float:
    """Bits per byte that `text` adds when it is compressed after `train` (at most its last 64 MiB less `text`)."""
    train = train[-max(0, LARGEST_DICTIONARY - len(text)) :]
    return 8 * (_compressed(train + text) - _compressed(train)) / _length(text)


def _compressed(text: bytes) -> int:
    window = min(LARGEST_DICTIONARY, max(4096, len(text)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))


def markov(text: bytes, train: bytes, order: int) -> float:
    """Bits per byte under a Markov model of `order` bytes of context, counted on `train`.

    Witten and Bell's interpolation (The zero-frequency problem, 1991, method C): after a context h seen c(h) times with
    t(h) different successors, p(x | h) = (c(h x) + t(h) p(x | h')) / (c(h) + t(h)), where h' is h without its first
    byte; below the empty context stands the uniform 1/256. The first bytes of `text` see the end of `train`. BadSpec
    for orders other than 0 to 7.
    """
    if not 0 <= order <= 7:
        raise BadSpec(f"order: a Markov model of 0 to 7 bytes of context is counted here, got {order}")
    known = np.frombuffer(train, dtype=np.uint8)
    _length(train)
    lead = known[-order:] if order else known[:0]
    seen = np.concatenate([lead, np.frombuffer(text, dtype=np.uint8)])
    chance = np.full(_length(text), 1 / 256)
    for length in range(order + 1):
        grams, times = np.unique(_grams(known, length + 1), return_counts=True)
        owners, first, kinds = np.unique(grams >> np.uint64(8), return_index=True, return_counts=True)
        totals = np.add.reduceat(times, first) if len(first) else times
        # A lead shorter than the order (a tiny training text) leaves the first bytes at their lower order.
        asked = _grams(seen, length + 1)[-len(chance) :]
        here = chance[len(chance) - len(asked) :]
        count = _look_up(grams, times, asked)
        total = _look_up(owners, totals, asked >> np.uint64(8))
        kind = _look_up(owners, kinds, asked >> np.uint64(8))
        here[:] = np.where(total > 0, (count + kind * here) / np.maximum(total + kind, 1), here)
    return float(-np.log2(chance).mean())


def _grams(text: NDArray[np.uint8], length: int) -> NDArray[np.uint64]:
    """Every `length` bytes in a row as one number, its last byte lowest."""
    packed = np.zeros(max(0, len(text) - length + 1), dtype=np.uint64)
    for place in range(length):
        packed = (packed << np.uint64(8)) | text[place : place + len(packed)]
    return packed


def _look_up(keys: NDArray[np.uint64], values: NDArray[np.int64], asked: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The value of each asked key, 0 where it is none of the (sorted) keys."""
    if not len(keys):
        return np.zeros(len(asked), dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    found: NDArray[np.int64] = np.where(keys[place] == asked, values[place], 0)
    return found


def _length(text: bytes) -> int:
    if not text:
        raise BadData("there is no text to count bits of; give at least one byte")
    return len(text)


def majority(data: ImageData, part: str = "test") -> float:
    """Accuracy on the validation or test part of always answering the class that the training part has most of."""
    counts = data.train().labels.bincount(minlength=data.num_classes)
    labels = (data.test() if part == "test" else data.validation()).labels
    return float((labels == counts.argmax()).double().mean())
