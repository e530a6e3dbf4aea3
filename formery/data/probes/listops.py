"""ListOps of the Long Range Arena (arXiv 2011.04006; Nangia and Bowman, arXiv 1804.06028): nested lists of digits under
minimum, maximum, median and sum modulo ten, to be worked out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from ...errors import BadSpec
from .probe import Probe, Sizes, checked, long_enough, nothing_counts

if TYPE_CHECKING:
    from torch import Tensor

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
TOKENS = (*OPERATORS, "]", *map(str, range(10)))
"""What an id stands for; 15 is padding, and 16 asks for the value."""
CLOSE, DIGIT, PADDING, ASK = 4, 5, 15, 16
LEAF = 0.25
"""Above this draw a node is a digit."""


def tree(draw: random.Random, max_depth: int, max_args: int, depth: int = 1) -> tuple[list[int], int]:
    """(ids, value) of a random expression, drawn in the order of the published generator: children before operator."""
    chance = draw.random() if depth < max_depth else 1.0
    if chance > LEAF:
        digit = draw.choice(range(10))
        return [DIGIT + digit], digit
    children = [tree(draw, max_depth, max_args, depth + 1) for _ in range(draw.randint(2, max_args))]
    operator = OPERATORS.index(draw.choice(OPERATORS))
    ids = [operator, *(token for child, _ in children for token in child), CLOSE]
    return ids, value_of(operator, [value for _, value in children])


def value_of(operator: int, values: Sequence[int]) -> int:
    """What an operator makes of digits; a median between two digits is cut to the lower."""
    if operator == 0:
        return min(values)
    if operator == 1:
        return max(values)
    return int(np.median(values)) if operator == 2 else sum(values) % 10


def expressions(
    draw: random.Random, *, max_depth: int = 10, max_args: int = 10, shortest: int = 500, longest: int = 2000
) -> Iterator[tuple[list[int], int]]:
    """Endless (ids, value) of more than `shortest` and fewer than `longest` tokens, as they come; about one expression
    in twelve is that long with the published options."""
    while True:
        ids, value = tree(draw, max_depth, max_args)
        if shortest < len(ids) < longest:
            yield ids, value


def longest_of(max_depth: int, max_args: int) -> int:
    """Tokens of the longest expression."""
    length = 1
    for _ in range(max_depth - 1):
        length = 2 + max_args * length
    return length


@checked
def listops(
    *,
    max_depth: Annotated[int, Field(ge=2)] = 4,
    max_args: Annotated[int, Field(ge=2)] = 4,
    sizes: Sizes = (32, 64, 128),
    trained: Sizes = (16, 32, 64),
) -> Probe:
    """Expressions of at most so many tokens, and their value at the end.

    A size is a length; shorter expressions have padding in front. The Arena's own are of 500 to 2000 tokens, depth 10
    and 10 arguments (`expressions` with its defaults).
    """
    long_enough("listops", 5, sizes, trained, "an operator with two digits and what asks for its value")
    most = longest_of(max_depth, max_args)
    if (largest := max(*sizes, *trained)) // 4 >= most:
        raise BadSpec(
            f"listops: expressions fill a quarter of a size, with max_depth={max_depth} and max_args={max_args} they "
            f"have {most} tokens at most, too few for {largest}; allow more or ask for a smaller one"
        )

    def draw(seed: int, step: int, batch: int, size: int) -> tuple[Tensor, Tensor]:
        import torch

        source = expressions(
            random.Random(f"listops {seed} {step}"), max_depth=max_depth, max_args=max_args, shortest=size // 4,
            longest=size,
        )  # fmt: skip
        ids, values = torch.full((batch, size), PADDING), []
        for row in range(batch):
            tokens, value = next(source)
            ids[row, -1 - len(tokens) : -1] = torch.tensor(tokens)
            values.append(DIGIT + value)
        ids[:, -1] = ASK
        targets = nothing_counts(ids)
        targets[:, -1] = torch.tensor(values)
        return ids, targets

    return Probe("listops", 17, draw, tuple(sizes), tuple(trained), "tokens", 0.18,
                 options={"max_depth": max_depth, "max_args": max_args})  # fmt: skip
