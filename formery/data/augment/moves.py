"""Shifts by whole pixels, flips, zoom and rotation of a batch; what comes in at the border repeats its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from .warping import warped


def turned(images: Tensor, zoom: float, rotation: float, size: Tensor, turn: Tensor) -> Tensor:
    """Scaled to [1 - zoom, 1 + zoom], rotated by up to `rotation` degrees, as `size` and `turn` (B,) in [0, 1) say."""
    scale = 1 / (1 + zoom * (2 * size - 1))
    angle = torch.deg2rad(rotation * (2 * turn - 1))
    cosine, sine, nought = scale * angle.cos(), scale * angle.sin(), torch.zeros_like(scale)
    return warped(images, [[cosine, -sine, nought], [sine, cosine, nought]], repeat=True)


def moved(images: Tensor, shifts: int, flips: bool, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
    """Shifted by up to `shifts` pixels each way, every second image mirrored, as draws (B,) in [0, 1) say."""
    height, width = images.shape[-2:]
    span = 2 * shifts + 1
    rows = torch.arange(height) + ((down * span).long() - shifts)[:, None]
    columns = torch.arange(width) + ((right * span).long() - shifts)[:, None]
    if flips:
        columns = torch.where((flip < 0.5)[:, None], width - 1 - columns, columns)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch = torch.arange(len(images))[:, None, None, None]
    channel = torch.arange(images.shape[1])[:, None, None]
    return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
