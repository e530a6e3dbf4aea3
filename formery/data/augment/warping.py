"""Images bent by affine maps, each by its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

OUTSIDE = 0.5


def warped(images: Tensor, rows: list[list[Tensor]], *, repeat: bool = False) -> Tensor:
    """(B, C, H, W): each pixel from where the map `rows` (2 x 3 of (B,), pixels from the middle) says, bilinear.

    What comes in from outside is grey, or with `repeat` the border's pixels.
    """
    height, width = images.shape[-2:]
    (a, b, c), (d, e, f) = rows
    unit = [[a, b * height / width, c * 2 / width], [d * width / height, e, f * 2 / height]]
    theta = torch.stack([torch.stack(row, -1) for row in unit], -2).to(images.dtype)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    if repeat:
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return functional.grid_sample(images - OUTSIDE, grid, mode="bilinear", align_corners=False) + OUTSIDE
