"""Mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899): each image blended with another, its target likewise."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .. import chance


def mixed(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    mixup: float,
    cutmix: float,
    share: float,
    seed: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and labels (B,) -> images and targets (B, num_classes) float32 whose rows sum to 1.

    A `share` of the batches is mixed, each with itself in reverse order and by one weight drawn from Beta(a, a), with
    a = `mixup`, or `cutmix` for boxes; where both are above 0 each has every second batch. So does timm.
    """
    targets = functional.one_hot(labels, num_classes).float()
    use, which, at, down, right = chance.uniform(seed, "mix", step, 5).tolist()
    if use >= share:
        return images, targets
    by_box = cutmix > 0 and (mixup <= 0 or which < 0.5)
    weight = beta(cutmix if by_box else mixup, at)
    others = images.flip(0)
    if by_box:
        images, weight = _pasted(images, others, weight, down, right)
    else:
        images = torch.lerp(others, images, weight)
    return images, torch.lerp(targets.flip(0), targets, weight)


def beta(alpha: float, at: float) -> float:
    """The quantile `at` of the distribution Beta(alpha, alpha): a draw from it where `at` is drawn evenly."""
    from scipy.special import betaincinv

    return float(np.clip(betaincinv(alpha, alpha, at), 0.0, 1.0))


def _pasted(images: Tensor, others: Tensor, weight: float, down: float, right: float) -> tuple[Tensor, float]:
    """A box of 1 - weight of the area, cut off at the border, from the others; and the share that is left."""
    high, wide = images.shape[-2:]
    side = math.sqrt(1 - weight)
    half_height, half_width = int(high * side) // 2, int(wide * side) // 2
    row, column = int(down * high), int(right * wide)
    rows = slice(max(0, row - half_height), min(high, row + half_height))
    columns = slice(max(0, column - half_width), min(wide, column + half_width))
    images = images.clone()
    images[:, :, rows, columns] = others[:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return images, 1 - area / (high * wide)
