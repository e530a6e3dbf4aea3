"""Random erasing (arXiv 1708.04896): a box of an image becomes noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import chance
from .boxes import boxes

AREA, RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
"""The paper's, and timm's."""


def erased(images: Tensor, share: float, seed: int, step: int) -> Tensor:
    """Normalised images (B, C, H, W), of which `share` have a box of standard normal noise, pixel by pixel."""
    high, wide = images.shape[-2:]
    chosen = chance.uniform(seed, "erase", step, len(images)) < share
    found, fits = boxes(seed, "erase box", step, len(images), (high, wide), AREA, RATIO)
    chosen &= fits
    if not chosen.any():
        return images
    images = images.clone()
    sizes = np.where(chosen, images.shape[1] * found[:, 2] * found[:, 3], 0)
    noise = torch.from_numpy(chance.normal(seed, "erase noise", step, int(sizes.sum()))).to(images.dtype)
    for item, part in zip(np.flatnonzero(chosen), noise.split(sizes[chosen].tolist()), strict=True):
        up, left, height, width = found[item].tolist()
        images[item, :, up : up + height, left : left + width] = part.view(-1, height, width)
    return images
