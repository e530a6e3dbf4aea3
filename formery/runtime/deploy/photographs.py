"""Real images to compare outputs on where there are no better ones: photographs that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data import chance
from ...model import Model


def crops(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """(count, *shape) square-ish pieces of scikit-learn's photographs at random places and sizes, 1 is white."""
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(np.array(p)).movedim(-1, 0).float() / 255 for p in load_sample_images().images]
    channels, height, width = shape
    drawn = chance.uniform(seed, "crops", 0, 3 * count).reshape(count, 3).tolist()
    found = []
    for i, (size, down, right) in enumerate(drawn):
        photograph = photographs[i % len(photographs)]
        side = int(96 + size * (min(photograph.shape[1:]) - 96))
        top, left = (int(place * (n - side)) for place, n in zip((down, right), photograph.shape[1:], strict=True))
        piece = photograph[None, :, top : top + side, left : left + side]
        resized = F.interpolate(piece, (height, width), mode="bilinear", antialias=True)[0]
        grey = resized.mean(0, keepdim=True)
        found.append(resized if channels == 3 else grey.expand(channels, -1, -1))
    return torch.stack(found)


def normalised(images: Tensor, model: Model) -> Tensor:
    """Images where 1 is white, as the model was trained to see them."""
    facts = model.default_cfg
    mean, std = (torch.tensor(facts[key])[:, None, None] for key in ("mean", "std"))
    if mean.shape[0] not in (1, images.shape[1]):
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    return (images - mean) / std
