"""Random shifts, flips, zoom and rotation of a batch of images, as a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import BadSpec
from . import chance


@dataclass(frozen=True)
class Augmentation:
    """How far an image may move.

    shifts: whole pixels in each direction; flips: left and right; zoom: scale in [1 - zoom, 1 + zoom]; rotation:
    degrees each way. What comes in at the border repeats the border's pixels.
    """

    shifts: int = 0
    flips: bool = False
    zoom: float = 0.0
    rotation: float = 0.0

    def __post_init__(self) -> None:
        if self.shifts < 0 or int(self.shifts) != self.shifts:
            raise BadSpec(f"shifts={self.shifts} must be a whole number of pixels, 0 or more")
        if not 0 <= self.zoom < 1:
            raise BadSpec(f"zoom={self.zoom} must lie in [0, 1): images are scaled by 1 - zoom to 1 + zoom")
        if not 0 <= self.rotation <= 180:
            raise BadSpec(f"rotation={self.rotation} must lie in 0..180 degrees")

    def describe(self) -> dict[str, Any]:
        """The options as plain JSON."""
        return asdict(self)

    def __call__(self, images: Tensor, seed: int, step: int) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), each image moved on its own."""
        drawn = torch.from_numpy(chance.uniform(seed, "augment", step, 5 * len(images)).reshape(5, len(images)))
        if self.zoom or self.rotation:
            images = self._turn(images, drawn[0], drawn[1])
        if self.shifts or self.flips:
            images = self._move(images, drawn[2], drawn[3], drawn[4])
        return images

    def _turn(self, images: Tensor, size: Tensor, turn: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        scale = 1 / (1 + self.zoom * (2 * size - 1))
        angle = torch.deg2rad(self.rotation * (2 * turn - 1))
        cosine, sine = scale * angle.cos(), scale * angle.sin()
        nought = torch.zeros_like(scale)
        rows = [[cosine, -sine * height / width, nought], [sine * width / height, cosine, nought]]
        theta = torch.stack([torch.stack(row, -1) for row in rows], -2).to(images.dtype)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _move(self, images: Tensor, down: Tensor, right: Tensor, flip: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        span = 2 * self.shifts + 1
        rows = torch.arange(height) + ((down * span).long() - self.shifts)[:, None]
        columns = torch.arange(width) + ((right * span).long() - self.shifts)[:, None]
        if self.flips:
            columns = torch.where((flip < 0.5)[:, None], width - 1 - columns, columns)
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        batch = torch.arange(len(images))[:, None, None, None]
        channel = torch.arange(images.shape[1])[:, None, None]
        return images[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


def default_shifts(size: int) -> int:
    """One pixel for small images, two from 32 pixels on."""
    return 1 if size < 32 else 2
