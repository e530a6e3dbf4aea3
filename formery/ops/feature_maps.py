"""Monomials of vectors as features, whose inner product is a polynomial of the vectors' inner product.

phi(x) has, for each degree i up to p, all products of i coordinates with i! / (repetitions!) under a root before each,
times a coefficient c_i of the degree: phi(x) . phi(y) = sum_i c_i^2 (x . y)^i. With c_i = 1 / sqrt(i!) that is the
exponential's series, cut off behind degree p (arXiv 2505.23735 writes the whole of it phi*).
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import NamedTuple

import torch
from torch import Tensor


class Tables(NamedTuple):
    """How the monomials of degree 2 and more are made of those one degree below, one degree behind the other."""

    parents: Tensor
    """(n,) which monomial, among those one degree below."""
    factors: Tensor
    """(n,) which coordinate it is multiplied by."""
    scales: Tensor
    """(n,) roots of the multinomial coefficients, float64."""


def width(dim: int, degree: int) -> int:
    """How many monomials of degree at most `degree` there are of `dim` coordinates."""
    return math.comb(dim + degree, degree)


def sizes(dim: int, degree: int) -> list[int]:
    """How many there are of degree 0, 1, ..., `degree`."""
    return [math.comb(dim + i - 1, i) for i in range(degree + 1)]


@lru_cache(maxsize=8)
def tables(dim: int, degree: int) -> Tables:
    """The tables for `dim` coordinates."""
    before: dict[tuple[int, ...], int] = {(i,): i for i in range(dim)}
    parents: list[int] = []
    factors: list[int] = []
    scales: list[float] = []
    for i in range(2, degree + 1):
        chosen = list(combinations_with_replacement(range(dim), i))
        parents += [before[c[:-1]] for c in chosen]
        factors += [c[-1] for c in chosen]
        repeated = (math.prod(math.factorial(n) for n in Counter(c).values()) for c in chosen)
        scales += [math.sqrt(math.factorial(i) / n) for n in repeated]
        before = {c: at for at, c in enumerate(chosen)}
    cpu = torch.device("cpu")
    return Tables(
        torch.tensor(parents, dtype=torch.long, device=cpu),
        torch.tensor(factors, dtype=torch.long, device=cpu),
        torch.tensor(scales, dtype=torch.float64, device=cpu),
    )


def polynomial(x: Tensor, coefficients: Tensor, tables: Tables) -> Tensor:
    """x (..., d), coefficients (p + 1,) of degrees 0 to p -> phi(x) (..., width(d, p)) of the equation above."""
    degree = coefficients.shape[0] - 1
    pieces = [torch.ones_like(x[..., :1]) * coefficients[0], *([x * coefficients[1]] if degree else [])]
    below, start = x, 0
    for i, size in enumerate(sizes(x.shape[-1], degree)[2:], 2):
        span = slice(start, start + size)
        below = below[..., tables.parents[span]] * x[..., tables.factors[span]]
        pieces.append(below * (tables.scales[span].to(x.dtype) * coefficients[i]))
        start += size
    return torch.cat(pieces, dim=-1)


def exponential(degree: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Coefficients whose kernel is the exponential's series up to `degree`: 1 / sqrt(i!)."""
    return torch.tensor([math.factorial(i) ** -0.5 for i in range(degree + 1)], dtype=dtype, device="cpu")


def taylor(degree: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Coefficients 1 / i!, from which learned ones start."""
    return torch.tensor([1 / math.factorial(i) for i in range(degree + 1)], dtype=dtype, device="cpu")
