"""What was read, said again: all of it, or what a mark stood on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .probe import Probe, integers, nothing_counts, orders

if TYPE_CHECKING:
    from torch import Tensor


def copy(*, vocab: int = 16, sizes: Sequence[int] = (8, 16, 32, 64), trained: Sequence[int] = (4, 8, 16)) -> Probe:
    """A random string, a separator, the string again (Repeat After Me, arXiv 2402.01032). A size is its length."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        string = 1 + integers(seed, "copy", step, (batch, size), vocab)
        ids = torch.cat([string, torch.zeros(batch, 1, dtype=torch.long), string[:, :-1]], dim=1)
        targets = nothing_counts(ids)
        targets[:, size:] = string
        return ids, targets

    return Probe("copy", vocab + 1, draw, tuple(sizes), tuple(trained), "tokens", 1 / vocab, lambda n: 2 * n,
                 {"vocab": vocab})  # fmt: skip


def selective_copy(
    *,
    vocab: int = 14,
    remembered: int = 8,
    sizes: Sequence[int] = (64, 128, 256, 512),
    trained: Sequence[int] = (32, 64, 128),
) -> Probe:
    """Tokens scattered among blanks, to be said in their order at the end (arXiv 2312.00752, section 4.1.1). A size is
    the length of the part with blanks."""

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        room = max(size, remembered)
        places = orders(seed, "selective places", step, batch, room, most=remembered).sort(dim=1).values
        tokens = 2 + integers(seed, "selective tokens", step, (batch, remembered), vocab)
        blanks = torch.zeros(batch, room, dtype=torch.long).scatter(1, places, tokens)
        ids = torch.cat([blanks, torch.ones(batch, remembered, dtype=torch.long)], dim=1)
        targets = nothing_counts(ids)
        targets[:, -remembered:] = tokens
        return ids, targets

    return Probe("selective_copy", vocab + 2, draw, tuple(sizes), tuple(trained), "tokens", 1 / vocab,
                 lambda n: n + remembered, {"vocab": vocab, "remembered": remembered})  # fmt: skip
