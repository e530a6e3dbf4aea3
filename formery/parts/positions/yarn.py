"""Rotary positions stretched to longer texts than were trained on, by YaRN (arXiv 2309.00071, section 3.2)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ...context import Context
from ...errors import BadSpec
from .rope import RoPE


class YaRN(RoPE):
    """A rope whose slow channels are slowed down by `factor`, and whose fast ones stay as they were.

    Channels that make fewer than `slow` turns within the `trained` tokens are slowed, those with more than `fast`
    are not, and those between are slowed in part, evenly by their number; `truncate` moves the two bounds out to whole
    channels. `gain` raises the turned channels of queries and keys, for a sharper softmax: the paper has 0.1 ln(factor)
    + 1 (equation 22).
    """

    EXAMPLES = (
        {"factor": 4.0, "trained": 16},
        {"factor": 2.5, "trained": 64, "fraction": 0.5, "truncate": False},
    )
    unseen = ("factor", "trained", "fast", "slow", "truncate", "gain", "theta", "fraction", "interleaved")

    def __init__(
        self,
        dim: int,
        *,
        factor: Annotated[float, Field(ge=1)],
        trained: Annotated[int, Field(gt=0)],
        fast: Annotated[float, Field(gt=0)] = 32.0,
        slow: Annotated[float, Field(gt=0)] = 1.0,
        truncate: bool = True,
        gain: Annotated[float, Field(gt=0)] = 1.0,
        theta: Annotated[float, Field(gt=1)] = 10000.0,
        fraction: float = 1.0,
        interleaved: bool = False,
    ) -> None:
        super().__init__(dim, theta=theta, fraction=fraction, interleaved=interleaved)
        if slow > fast:
            raise BadSpec(f"slow ({slow}) is at most fast ({fast}): turns within the trained length")
        self.factor, self.trained, self.fast, self.slow, self.truncate = factor, trained, fast, slow, truncate
        self.gain = gain

    def rates(self, device: torch.device) -> Tensor:
        first, last = self._channel(self.fast), self._channel(self.slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.width - 1)
        if first == last:
            last += 0.001
        plain = super().rates(device)
        channels = torch.arange(len(plain), device=device, dtype=torch.float32)
        slowed = ((channels - first) / (last - first)).clamp(0, 1)
        return plain / self.factor * slowed + plain * (1 - slowed)

    def _table(self, length: int, ctx: Context, device: torch.device) -> tuple[Tensor, Tensor]:
        cos, sin = super()._table(length, ctx, device)
        return cos * self.gain, sin * self.gain

    def _channel(self, turns: float) -> float:
        """The channel, not a whole one, that makes so many turns within the trained length."""
        return self.width * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(self.theta))
