"""Long inputs of bytes and pixels in the manner of the Long Range Arena's text, retrieval and image tasks, from what
lies in installed packages; named apart from the Arena's, whose data are others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from .. import chance
from .probe import JUDGED, Probe, checked, integers, nothing_counts

if TYPE_CHECKING:
    from torch import Tensor

Pairs = Annotated[Sequence[Annotated[int, Field(ge=2)]], Field(min_length=1)]
"""Sizes of what has two halves."""
BYTES = 256
ASK = BYTES
NO, YES = BYTES + 1, BYTES + 2


@cache
def _topics(judged: bool) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Python's help topics as bytes, longest first: every fifth is kept for judging."""
    from pydoc_data.topics import topics

    texts = sorted(topics.values(), key=len, reverse=True)
    return [
        np.frombuffer(text.encode("latin-1", "replace"), np.uint8)
        for i, text in enumerate(texts)
        if (i % 5 == 0) is judged
    ]


def _texts(step: int, length: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Topics that windows of a length are drawn from: those of twice the length or more (the longest, if none is)."""
    texts = _topics(step >= JUDGED)
    return [text for text in texts if len(text) >= 2 * length] or texts[:1]


def _windows(seed: int, stream: str, step: int, which: Tensor, length: int) -> Tensor:
    """(batch, num, length): for each of the topics `which` (batch, num) a stretch from somewhere in it."""
    import torch

    texts = _texts(step, length)
    places = chance.uniform(seed, stream, step, which.numel())
    rows = []
    for topic, place in zip(which.flatten().tolist(), places, strict=True):
        text = texts[topic]
        begin = int(place * max(1, len(text) - length))
        rows.append(np.resize(text, max(len(text), length))[begin : begin + length])
    return torch.from_numpy(np.stack(rows).astype(np.int64)).view(*which.shape, length)


def _pieces(seed: int, stream: str, step: int, batch: int, length: int, num: int) -> tuple[Tensor, Tensor]:
    """(topics (batch, num), windows (batch, num, length))."""
    which = integers(seed, f"{stream} topic", step, (batch, num), len(_texts(step, length)))
    return which, _windows(seed, f"{stream} place", step, which, length)


def _asked(ids: Tensor, yes: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    ids = torch.cat([ids, torch.full((len(ids), 1), ASK)], dim=1)
    targets = nothing_counts(ids)
    targets[:, -1] = torch.where(yes, YES, NO)
    return ids, targets


@checked
def topics_text(*, sizes: Pairs = (128, 256, 512), trained: Pairs = (64, 128, 256)) -> Probe:
    """A stretch of help text as bytes: do its halves stand in their order? A size is a length."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        _, windows = _pieces(seed, "topics_text", step, batch, size, 1)
        ids, half = windows[:, 0], size // 2
        yes = integers(seed, "topics_text order", step, (batch,), 2).bool()
        swapped = torch.cat([ids[:, half:], ids[:, :half]], dim=1)
        return _asked(torch.where(yes[:, None], ids, swapped), yes)

    return Probe("topics_text", BYTES + 3, draw, tuple(sizes), tuple(trained), "bytes", 0.5, lambda n: n + 1)


@checked
def topics_retrieval(*, sizes: Pairs = (128, 256, 512), trained: Pairs = (64, 128, 256)) -> Probe:
    """Two stretches of help text as bytes: are they of one topic? A size is the length of both together."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        half = size // 2
        which, windows = _pieces(seed, "topics_retrieval", step, batch, half, 2)
        same = _windows(seed, "topics_retrieval again", step, which[:, :1], half)[:, 0]
        yes = integers(seed, "topics_retrieval answer", step, (batch,), 2).bool()
        second = torch.where(yes[:, None], same, windows[:, 1])
        return _asked(torch.cat([windows[:, 0], second], dim=1), yes | (which[:, 0] == which[:, 1]))

    return Probe(
        "topics_retrieval", BYTES + 3, draw, tuple(sizes), tuple(trained), "bytes", 0.5, lambda n: n // 2 * 2 + 1
    )


LEVELS = 17
"""Grey values of scikit-learn's digits."""
SIDE = 8
"""Of these digits, in pixels."""
Sides = Annotated[Sequence[Annotated[int, Field(gt=0, multiple_of=SIDE)]], Field(min_length=1)]


@cache
def _digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images.astype(np.int64), found.target.astype(np.int64)


@checked
def digits_pixels(*, sizes: Sides = (8, 16, 32), trained: Sides = (8, 16)) -> Probe:
    """Handwritten digits, each pixel repeated to the side asked for, as rows of pixels; the digit at the end.

    A size is a side (a multiple of 8): 32 gives the 1,024 tokens of the Arena's image task. Every fifth image is kept
    for judging.
    """

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        images, labels = _digits()
        kept = np.arange(len(images)) % 5 == 0
        mine = np.flatnonzero(kept if step >= JUDGED else ~kept)
        chosen = mine[chance.integers(seed, "digits_pixels", step, batch, len(mine))]
        times = size // SIDE
        pixels = images[chosen].repeat(times, 1).repeat(times, 2).reshape(batch, -1)
        ids = torch.cat([torch.from_numpy(pixels), torch.full((batch, 1), LEVELS + 10)], dim=1)
        targets = nothing_counts(ids)
        targets[:, -1] = LEVELS + torch.from_numpy(labels[chosen])
        return ids, targets

    return Probe("digits_pixels", LEVELS + 11, draw, tuple(sizes), tuple(trained), "pixels a side", 0.1,
                 lambda n: n**2 + 1)  # fmt: skip
