"""Random resized crops (arXiv 1409.4842, section 6): a box of random area and shape, at the full size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .boxes import boxes


def cropped(
    images: Tensor,
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    mode: str,
    seed: int,
    step: int,
) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), a box of each image; the largest in its middle where ten tries find none.

    Resized by `mode` (bilinear, bicubic) with antialiasing.
    """
    high, wide = images.shape[-2:]
    found, fits = boxes(seed, "crop", step, len(images), (high, wide), area, ratio)
    found[~fits] = _middle(high, wide, ratio)
    crops = []
    for image, (up, left, height, width) in zip(images, found.tolist(), strict=True):
        box = image[None, :, up : up + height, left : left + width]
        whole = box.shape[2:] == size
        crops.append(
            box if whole else functional.interpolate(box, size, mode=mode, align_corners=False, antialias=True)
        )
    out = torch.cat(crops)
    return out.clamp_(0, 1) if mode == "bicubic" else out


def _middle(high: int, wide: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    width, height = wide, high
    if wide / high < ratio[0]:
        height = max(1, round(wide / ratio[0]))
    elif wide / high > ratio[1]:
        width = max(1, round(high * ratio[1]))
    return (high - height) // 2, (wide - width) // 2, height, width
