"""Text as bytes, in three stretches one behind another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadData, BadSpec
from . import chance
from .images import check_batch
from .splits import PARTS, fractions_of

IGNORED = -100
SHORTEST = 16


class TextData:
    """A text of bytes (vocabulary 256), split by position into training, validation and test.

    text: all bytes; splits: shares of the three parts, or `bounds`: where validation and test begin, in bytes.
    BadData where a part is shorter than 16 bytes or the text repeats one byte.
    """

    modality = "text"
    task = "language"
    vocab = 256

    def __init__(
        self,
        text: bytes,
        *,
        name: str = "text",
        seed: int = 0,
        splits: Sequence[float] = (0.9, 0.05, 0.05),
        bounds: tuple[int, int] | None = None,
        notes: dict[str, Any] | None = None,
    ) -> None:
        shares = fractions_of(splits)
        self.bytes: NDArray[np.uint8] = np.frombuffer(text, dtype=np.uint8)
        num = len(self.bytes)
        first, second = bounds or (round(num * shares[0]), round(num * (shares[0] + shares[1])))
        self.spans = dict(zip(PARTS, ((0, first), (first, second), (second, num)), strict=True))
        self.name = name
        self.seed = seed
        self.notes = dict(notes or {})
        self.digest = hashlib.sha256(text).hexdigest()
        for part, (start, end) in self.spans.items():
            if end - start < SHORTEST:
                raise BadData(
                    f"{name} is too short: {num} bytes leave {end - start} for its {part} part; give at least "
                    f"{SHORTEST} a part"
                )
        if (self.bytes == self.bytes[0]).all():
            raise BadData(f"{name} repeats the byte {int(self.bytes[0])} throughout; there is nothing to learn from it")

    def num_bytes(self, part: str) -> int:
        """Length of `train`, `validation` or `test` in bytes: the denominator of bits per byte."""
        start, end = self._span(part)
        return end - start

    def part(self, part: str) -> bytes:
        """The bytes of `train`, `validation` or `test`."""
        start, end = self._span(part)
        return self.bytes[start:end].tobytes()

    def steps_per_epoch(self, batch_size: int, length: int) -> int:
        """Training steps that read as many bytes as the training part has."""
        return -(-self.num_bytes("train") // (check_batch(batch_size) * length))

    def train_batch(self, step: int, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
        """(ids, targets), both (B, L) int64, targets one byte ahead: windows of the training part, uniform in their
        start.

        A pure function of (seed, step). BadData where the part is no longer than `length`.
        """
        self._check_length(length)
        starts = chance.integers(self.seed, "windows", step, check_batch(batch_size), self.num_bytes("train") - length)
        return self._windows(starts, length)

    def sample(self, num: int, length: int) -> Tensor:
        """`num` windows of the training part for calibration: ids (num, L)."""
        self._check_length(length)
        starts = chance.integers(self.seed, "sample", 0, num, self.num_bytes("train") - length)
        return self._windows(starts, length)[0]

    def validation_windows(
        self, length: int, stride: int | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every byte of the validation part once as a target; see `windows`."""
        return self.windows("validation", length, stride, batch_size=batch_size)

    def test_windows(
        self, length: int, stride: int | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every byte of the test part once as a target: for the end, once; see `windows`."""
        return self.windows("test", length, stride, batch_size=batch_size)

    def windows(
        self, part: str, length: int, stride: int | None = None, *, batch_size: int = 16
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids (b, L), targets (b, L)), int64, where targets that are not counted are -100 (cross entropy ignores
        these).

        Each window counts its last `stride` targets (half of `length` unless given; the last window fewer), so that
        over all windows every byte of the part is a target exactly once, seen with at least `length - stride + 1` and
        at most `length` bytes before it. The first bytes of a part see the end of what precedes it in the text.
        """
        self._check_length(length)
        stride = max(1, length // 2) if stride is None else stride
        if not 1 <= stride <= length:
            raise BadSpec(
                f"stride={stride} must lie in 1..{length}, the length of a window: beyond it bytes would be left out"
            )
        start, end = self._span(part)
        # The first byte of a text has nothing before it to be predicted from.
        start = max(start, 1)
        firsts = np.arange(start, end, stride)
        ends = np.minimum(firsts + stride, end)
        begins = np.maximum(ends - 1 - length, 0)
        places = np.arange(1, length + 1)
        for at in range(0, len(firsts), check_batch(batch_size)):
            chosen = slice(at, at + batch_size)
            ids, targets = self._windows(begins[chosen], length)
            where = begins[chosen, None] + places
            counted = (where >= firsts[chosen, None]) & (where < ends[chosen, None])
            yield ids, torch.where(torch.from_numpy(counted), targets, IGNORED)

    def describe(self) -> dict[str, Any]:
        """Plain JSON for reports; sizes are in bytes."""
        return {
            "name": self.name,
            "modality": self.modality,
            "task": self.task,
            "digest": self.digest,
            "seed": self.seed,
            "splits": {part: self.num_bytes(part) for part in PARTS},
            "vocab": self.vocab,
            **self.notes,
        }

    def _windows(self, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
        found = torch.from_numpy(self.bytes[starts[:, None] + np.arange(length + 1)].astype(np.int64))
        return found[:, :-1].contiguous(), found[:, 1:].contiguous()

    def _span(self, part: str) -> tuple[int, int]:
        if part not in self.spans:
            raise BadSpec(f"part={part!r} must be one of {', '.join(PARTS)}")
        return self.spans[part]

    def _check_length(self, length: int) -> None:
        num = self.num_bytes("train")
        if length < 1:
            raise BadSpec(f"length={length} must be 1 or more")
        if length >= num:
            raise BadData(
                f"{self.name} is too short: its training part has {num} bytes, windows of {length} need {length + 1}; "
                "take shorter windows or more text"
            )
