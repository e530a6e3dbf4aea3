"""What was read, said again: all of it, or what a mark stood on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .probe import Count, Kinds, Probe, Sizes, checked, integers, long_enough, nothing_counts, orders

if TYPE_CHECKING:
    from torch import Tensor


@checked
def copy(*, vocab: Kinds = 16, sizes: Sizes = (8, 16, 32, 64), trained: Sizes = (4, 8, 16)) -> Probe:
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


@checked
def selective_copy(
    *,
    vocab: Kinds = 14,
    remembered: Count = 8,
    sizes: Sizes = (64, 128, 256, 512),
    trained: Sizes = (32, 64, 128),
) -> Probe:
    """Tokens scattered among blanks, to be said in their order at the end (arXiv 2312.00752, section 4.1.1). A size is
    the length of the part with blanks."""
    long_enough("selective_copy", remembered, sizes, trained, f"{remembered} tokens to remember")

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        places = orders(seed, "selective places", step, batch, size, most=remembered).sort(dim=1).values
        tokens = 2 + integers(seed, "selective tokens", step, (batch, remembered), vocab)
        blanks = torch.zeros(batch, size, dtype=torch.long).scatter(1, places, tokens)
        ids = torch.cat([blanks, torch.ones(batch, remembered, dtype=torch.long)], dim=1)
        targets = nothing_counts(ids)
        targets[:, -remembered:] = tokens
        return ids, targets

    return Probe("selective_copy", vocab + 2, draw, tuple(sizes), tuple(trained), "tokens", 1 / vocab,
                 lambda n: n + remembered, {"vocab": vocab, "remembered": remembered})  # fmt: skip
