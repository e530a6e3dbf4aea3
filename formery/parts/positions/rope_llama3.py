"""Rotary positions stretched as in Llama 3.1 (arXiv 2407.21783, section 3.2)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...errors import BadSpec
from .rope import RoPE


class RoPELlama3(RoPE):
    """A rope whose waves longer than `trained / low` tokens are `factor` times longer, and shorter than `trained /
    high` as they were; between them the rates are mixed evenly in the number of waves within `trained`."""

    EXAMPLES = (
        {"factor": 4.0, "trained": 64},
        {"factor": 8.0, "trained": 32, "low": 2.0, "high": 3.0, "theta": 5e5},
    )
    unseen = ("factor", "trained", "low", "high", "theta", "fraction", "interleaved")

    def __init__(
        self,
        dim: int,
        *,
        factor: Annotated[float, Field(ge=1)],
        trained: Annotated[int, Field(gt=0)],
        low: Annotated[float, Field(gt=0)] = 1.0,
        high: Annotated[float, Field(gt=0)] = 4.0,
        theta: float = 10000.0,
        fraction: float = 1.0,
        interleaved: bool = False,
    ) -> None:
        super().__init__(dim, theta=theta, fraction=fraction, interleaved=interleaved)
        if high <= low:
            raise BadSpec(f"high ({high}) is above low ({low}): waves within the trained length")
        self.factor, self.trained, self.low, self.high = factor, trained, low, high

    def rates(self, device: torch.device) -> Tensor:
        plain = super().rates(device)
        waves = self.trained * plain / (2 * math.pi)
        kept = ((waves - self.low) / (self.high - self.low)).clamp(0, 1)
        return plain / self.factor * (1 - kept) + plain * kept
