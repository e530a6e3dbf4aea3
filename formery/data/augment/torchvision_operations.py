"""The same operations by torchvision's `transforms.v2.functional`, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .operations import Operation
from .warping import OUTSIDE


def installed() -> bool:
    """Whether there is a torchvision."""
    return find_spec("torchvision") is not None


@lru_cache(maxsize=1)
def release() -> str:
    """Its version."""
    return version("torchvision")


@lru_cache(maxsize=1)
def operations() -> dict[str, Operation]:
    """Names as in `operations.OPERATIONS`, to functions of images (n, C, H, W) in [0, 1] and amounts (n,)."""
    from ...interop.torchvision import declare_missing_operators

    declare_missing_operators()
    from torchvision.transforms.v2 import functional as theirs

    def warped(image: Tensor, *, about: list[float] | None = None, **options: Any) -> Tensor:
        whole = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | options
        return theirs.affine(image - OUTSIDE, **whole, interpolation=BILINEAR, center=about) + OUTSIDE

    def degrees(amount: float) -> float:
        return math.degrees(math.atan(amount))

    singles: dict[str, Callable[[Tensor, float], Tensor]] = {
        "identity": lambda image, amount: image,
        "shear_x": lambda image, amount: warped(image, shear=[degrees(amount), 0.0], about=[0, 0]),
        "shear_y": lambda image, amount: warped(image, shear=[0.0, degrees(amount)], about=[0, 0]),
        "translate_x": lambda image, amount: warped(image, translate=[int(amount * image.shape[-1]), 0]),
        "translate_y": lambda image, amount: warped(image, translate=[0, int(amount * image.shape[-2])]),
        "rotate": lambda image, amount: theirs.rotate(image - OUTSIDE, angle=amount, interpolation=BILINEAR) + OUTSIDE,
        "brightness": lambda image, amount: theirs.adjust_brightness(image, 1 + amount),
        "colour": lambda image, amount: theirs.adjust_saturation(image, 1 + amount),
        "contrast": lambda image, amount: theirs.adjust_contrast(image, 1 + amount),
        "sharpness": lambda image, amount: theirs.adjust_sharpness(image, 1 + amount),
        "posterize": lambda image, amount: theirs.posterize(image, int(amount)),
        "solarize": lambda image, amount: theirs.solarize(image, amount),
        "autocontrast": lambda image, amount: theirs.autocontrast(image),
        "equalize": lambda image, amount: theirs.equalize(image),
    }

    def each(single: Callable[[Tensor, float], Tensor]) -> Operation:
        def all_of(images: Tensor, amounts: Tensor) -> Tensor:
            return torch.stack([single(image, a) for image, a in zip(images, amounts.tolist(), strict=True)])

        return all_of

    return {name: each(single) for name, single in singles.items()}


BILINEAR = "bilinear"
