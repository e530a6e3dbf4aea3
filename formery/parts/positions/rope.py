"""Rotary positions (RoFormer, arXiv 2104.09864)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ...context import NOTHING, Context
from ...errors import BadSpec
from .position import Position


class RoPE(Position):
    """Turns pairs of a head's channels by angles that grow with the token's place.

    The first `fraction` of the channels is turned; pairs are channel i with i + half, or neighbours if `interleaved`.
    Angles, sines and cosines are float32, worked out once a forward.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"fraction": 0.5, "theta": 1e6}, {"interleaved": True})
    unseen: ClassVar[tuple[str, ...]] = ("theta", "fraction", "interleaved")
    acts_on = "queries and keys"

    def __init__(self, dim: int, *, theta: float = 10000.0, fraction: float = 1.0, interleaved: bool = False) -> None:
        super().__init__()
        self.width = int(dim * fraction)
        if self.width % 2 or not 0 < self.width <= dim:
            raise BadSpec(f"rope turns an even number of channels, at most the head's {dim}, got {dim} * {fraction}")
        if theta <= 0:
            raise BadSpec(f"theta is positive, got {theta}")
        self.theta, self.interleaved = theta, interleaved

    def rates(self, device: torch.device) -> Tensor:
        """(width / 2,) radians that each pair turns a token."""
        half = self.width // 2
        return self.theta ** (-torch.arange(half, device=device, dtype=torch.float32) / half)

    def _table(self, length: int, ctx: Context, device: torch.device) -> tuple[Tensor, Tensor]:
        places = torch.arange(length, device=device) if ctx.positions is None else ctx.positions
        angles = places[..., None].float() * self.rates(device)
        cos, sin = self._paired(angles.cos(), angles.cos()), self._paired(-angles.sin(), angles.sin())
        return (cos, sin) if cos.dim() == 2 else (cos[:, None], sin[:, None])

    def _paired(self, first: Tensor, second: Tensor) -> Tensor:
        """What belongs to the first and the second channel of each pair, in the order of the channels."""
        if self.interleaved:
            return torch.stack([first, second], dim=-1).flatten(-2)
        return torch.cat([first, second], dim=-1)

    def _partners(self, x: Tensor) -> Tensor:
        """The other channel of each pair in the place of each."""
        if self.interleaved:
            return x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([second, first], dim=-1)

    def forward(self, x: Tensor, ctx: Context = NOTHING) -> Tensor:
        """x (B, H, L, D) turned by the places of its L tokens."""
        options = tuple(value for name, value in vars(self).items() if isinstance(value, int | float))
        key = (type(self), *options, x.shape[2])
        cos, sin = ctx.once(key, lambda: self._table(x.shape[2], ctx, x.device))
        if x.dtype not in (torch.bfloat16, torch.float16):
            cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        part = x if self.width == x.shape[-1] else x[..., : self.width]
        turned = torch.addcmul(part * cos, self._partners(part), sin).to(x.dtype)
        return turned if part is x else torch.cat([turned, x[..., self.width :]], dim=-1)
