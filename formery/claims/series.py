"""Drawn series of frames and small trainings on them, by which claims about models of series are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model import Model
from .check import Progress

FRAMES, BANDS, TONES = 128, 16, 3
WORDS = 2**TONES
Draw = Callable[[int, int], tuple[Tensor, Tensor]]
"""(step, batch) -> series (B, L, channels), targets (B,) or (B, L)."""


def tone_words(seed: int) -> Draw:
    """Words of three tones, each high or low, spoken somewhere in the first half of 128 frames of 16 noisy bands.

    All words begin alike for some frames, so that nobody knows them before they are spoken: a third of the frames tells
    two tones at best, and the last quarter tells nothing.
    """

    def draw(step: int, batch: int) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(1_000_003 * seed + step)
        words = torch.randint(0, WORDS, (batch,), generator=g)
        tones = (words[:, None] >> torch.arange(TONES)) & 1
        start = torch.randint(4, 20, (batch,), generator=g)
        lengths = torch.randint(12, 19, (batch, TONES), generator=g)
        ends = start[:, None] + lengths.cumsum(1)
        at = torch.arange(FRAMES)
        spoken = (at >= start[:, None]) & (at < ends[:, -1:])
        which = (at[None, :, None] >= ends[:, None, :]).sum(-1).clamp(max=TONES - 1)
        height = 4.0 + 7.0 * tones.gather(1, which) + torch.randint(0, 3, (batch, 1), generator=g)
        loud = torch.exp(-0.5 * (torch.arange(BANDS) - height[..., None]) ** 2) * spoken[..., None]
        return 2.0 * loud + 0.5 * torch.randn(batch, FRAMES, BANDS, generator=g), words

    return draw


def fitted(
    spec: Mapping[str, Any],
    draw: Draw,
    *,
    steps: int,
    seed: int,
    progress: Progress,
    learning_rate: float = 3e-3,
    batch_size: int = 32,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    change: Callable[[Model], None] | None = None,
) -> Model:
    """The model of `spec` after a training, in evaluation; weights by fan-in, for these models are narrow."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = Model(spec)
        model.init_weights(None)
        if change is not None:
            change(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
        warmup = max(1, steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup) * (1 - step / steps) ** 0.5
        )
        model.train()
        for step in range(steps):
            x, targets = draw(step, batch_size)
            value = loss(model(x), targets)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % 50 == 49:
                progress(f"step {step + 1} of {steps}, loss {value.item():.3f}")
    return model.eval()


JUDGED = 10**6
"""Steps from here on are drawn for judging alone."""
