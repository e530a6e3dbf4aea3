"""A state that every token changes: parity, and permutations that compose."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations as all_orders
from typing import TYPE_CHECKING

from ...errors import BadSpec
from .. import drawn
from .probe import Probe, Sizes, checked, integers

if TYPE_CHECKING:
    from torch import Tensor


@checked
def parity(*, sizes: Sizes = (32, 64, 128, 256), trained: Sizes = (8, 16, 32)) -> Probe:
    """Bits, and at each the parity of all so far (arXiv 2411.12537): needs negative eigenvalues in a linear recurrence.
    A size is a length."""
    return Probe("parity", 2, drawn.parity, tuple(sizes), tuple(trained), "tokens", 0.5)


@checked
def permutations(*, things: int = 3, sizes: Sizes = (16, 32, 64), trained: Sizes = (4, 8, 16)) -> Probe:
    """Permutations of `things` things, and at each what all so far compose to (the word problem of the symmetric group;
    arXiv 2404.08819). With five things no constant-depth circuit of the kind attention is solves it. A size is a
    length."""
    if not 2 <= things <= 5:
        raise BadSpec(f"things is 2 to 5, got {things}")
    elements = list(all_orders(range(things)))
    after = composition(elements)

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        ids = integers(seed, "permutations", step, (batch, size), len(elements))
        return ids, composed(ids, after)

    return Probe("permutations", len(elements), draw, tuple(sizes), tuple(trained), "tokens", 1 / len(elements),
                 options={"things": things})  # fmt: skip


def composition(elements: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Row a, column b: the number of the permutation that is a after b, i -> a[b[i]]."""
    return [[elements.index(tuple(a[i] for i in b)) for b in elements] for a in elements]


def composed(numbers: Tensor, after: Sequence[Sequence[int]]) -> Tensor:
    """(B, L) numbers of permutations -> (B, L) numbers of what they compose to by the table `after`, from the first to
    each; number 0 changes nothing."""
    import torch

    table, now, found = torch.tensor(after), torch.zeros(len(numbers), dtype=torch.long), []
    for column in numbers.T:
        now = table[column, now]
        found.append(now)
    return torch.stack(found, dim=1)
