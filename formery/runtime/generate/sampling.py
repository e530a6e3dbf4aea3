"""Which token comes next: the likeliest, or one drawn from a tempered and truncated distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadSpec, CannotRun
from .given import check_number, whole


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from scores.

    `temperature` divides the scores; at 0 the likeliest token is taken and nothing is drawn. Then, in this order, the
    `top_k` likeliest are kept, of these the fewest whose probabilities reach `top_p` (nucleus, arXiv 1904.09751), and
    of these the ones at least `min_p` times as likely as the likeliest (arXiv 2407.01082). What is kept is scaled to
    sum 1 after each step.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None:
            whole("top_k", self.top_k, 1)
        for name in ("temperature", "top_p", "min_p"):
            if (value := getattr(self, name)) is not None or name == "temperature":
                check_number(name, value)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadSpec(f"temperature is at least 0 (0 takes the likeliest token), got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadSpec(f"top_p is above 0 and at most 1, got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise BadSpec(f"min_p is at least 0 and at most 1, got {self.min_p}")
        truncates = [name for name in ("top_k", "top_p", "min_p") if getattr(self, name) is not None]
        if self.greedy and truncates:
            raise BadSpec(f"{truncates[0]} goes with a temperature above 0; at 0 the likeliest token is taken")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0


def distribution(scores: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (B, V), float64, of the next token from scores (B, V); one-hot where the likeliest is taken."""
    if sampling.greedy:
        return torch.zeros_like(scores, dtype=torch.float64).scatter_(1, likeliest(scores)[:, None], 1.0)
    shares = (scores.double() / sampling.temperature).softmax(-1)
    if sampling.top_k is not None and sampling.top_k < shares.shape[-1]:
        kept = shares.topk(sampling.top_k, dim=-1).indices
        shares = _scaled(torch.zeros_like(shares).scatter_(1, kept, shares.gather(1, kept)))
    if sampling.top_p is not None and sampling.top_p < 1:
        falling, order = shares.sort(dim=-1, descending=True, stable=True)
        before = falling.cumsum(-1) - falling
        falling = falling.masked_fill(before >= sampling.top_p, 0)
        shares = _scaled(torch.zeros_like(shares).scatter_(1, order, falling))
    if sampling.min_p:
        shares = _scaled(shares.masked_fill(shares < sampling.min_p * shares.amax(-1, keepdim=True), 0))
    return shares


def _scaled(shares: Tensor) -> Tensor:
    return shares / shares.sum(-1, keepdim=True)


def likeliest(scores: Tensor) -> Tensor:
    """(B,) the token of the highest score, the first of equals."""
    return scores.argmax(-1)


def drawn(shares: Tensor, uniforms: Tensor) -> Tensor:
    """(B,) tokens with probabilities (B, V), by inversion: one uniform number in [0, 1) a row, (B,) float64.

    A token of probability 0 is never drawn.
    """
    sums = shares.cumsum(-1)
    total = sums[:, -1:].contiguous()
    found = torch.searchsorted(sums, uniforms[:, None] * total, right=True)
    return torch.minimum(found, torch.searchsorted(sums, total))[:, 0]


class Chooser:
    """Chooses the next token of each row. A row draws from a generator of its own, so that its neighbours do not
    matter: row i of a batch draws what it would draw alone with `seed + i`."""

    def __init__(self, sampling: Sampling, seed: int, rows: int) -> None:
        self.sampling = sampling
        self.generators = [] if sampling.greedy else [torch.Generator().manual_seed(seed + i) for i in range(rows)]

    def __call__(self, scores: Tensor, rows: list[int]) -> list[int]:
        """Tokens for scores (B, V) of these rows; CannotRun where they are no numbers."""
        if not scores.amax(-1).isfinite().all():
            raise CannotRun("the model's scores are no finite numbers; it is damaged, or was not trained to the end")
        if self.sampling.greedy:
            return likeliest(scores).tolist()
        shares = distribution(scores, self.sampling)
        uniforms = [torch.rand((), dtype=torch.float64, generator=self.generators[row]) for row in rows]
        return drawn(shares, torch.stack(uniforms).to(shares.device)).tolist()
