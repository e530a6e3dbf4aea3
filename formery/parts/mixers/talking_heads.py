"""Heads of attention that talk: each score a learned mixture of all heads' (arXiv 2003.02436, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TalkingHeads(nn.Module):
    """Scores or weights (B, heads, N, M) to the same shape: a dense layer over the heads."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        bound = heads**-0.5  # torch's own first values of the 1 x 1 convolution that others write here
        self.weight = nn.Parameter(torch.empty(heads, heads).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads).uniform_(-bound, bound))

    def forward(self, scores: Tensor) -> Tensor:
        return (self.weight @ scores.flatten(2) + self.bias[:, None]).view_as(scores)

    def macs(self, pairs: int) -> int:
        """Multiply-adds for so many pairs of query and key."""
        return self.weight.numel() * pairs
