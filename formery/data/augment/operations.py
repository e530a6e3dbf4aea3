"""The fourteen operations of RandAugment on tensors: many images at once, each by an amount of its own.

An operation takes images (n, C, H, W) in [0, 1], C 1 or 3, and amounts (n,); what comes in from outside is grey. Values
agree with torchvision's `transforms.v2.functional` on float images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .warping import warped

Operation = Callable[[Tensor, Tensor], Tensor]
LUMA = (0.2989, 0.587, 0.114)


def identity(images: Tensor, amount: Tensor) -> Tensor:
    """As they are."""
    return images


def shear_x(images: Tensor, amount: Tensor) -> Tensor:
    """Rows move sideways by `amount` pixels for each pixel below the top."""
    one, nought = torch.ones_like(amount), torch.zeros_like(amount)
    return warped(images, [[one, amount, amount * images.shape[-2] / 2], [nought, one, nought]])


def shear_y(images: Tensor, amount: Tensor) -> Tensor:
    """Columns move up or down by `amount` pixels for each pixel from the left."""
    one, nought = torch.ones_like(amount), torch.zeros_like(amount)
    return warped(images, [[one, nought, nought], [amount, one, amount * images.shape[-1] / 2]])


def translate_x(images: Tensor, amount: Tensor) -> Tensor:
    """To the right by a share of the width, in whole pixels."""
    one, nought = torch.ones_like(amount), torch.zeros_like(amount)
    return warped(images, [[one, nought, -(amount * images.shape[-1]).trunc()], [nought, one, nought]])


def translate_y(images: Tensor, amount: Tensor) -> Tensor:
    """Down by a share of the height, in whole pixels."""
    one, nought = torch.ones_like(amount), torch.zeros_like(amount)
    return warped(images, [[one, nought, nought], [nought, one, -(amount * images.shape[-2]).trunc()]])


def rotate(images: Tensor, amount: Tensor) -> Tensor:
    """Counter-clockwise by degrees, about the middle."""
    angle = torch.deg2rad(amount)
    cosine, sine, nought = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return warped(images, [[cosine, -sine, nought], [sine, cosine, nought]])


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Blended with black."""
    return (images * _factor(amount)).clamp(0, 1)


def colour(images: Tensor, amount: Tensor) -> Tensor:
    """Blended with its grey version; grey images stay."""
    return images if images.shape[1] == 1 else _blended(_grey(images), images, amount)


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Blended with its mean grey."""
    return _blended(_grey(images).mean((1, 2, 3), keepdim=True), images, amount)


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Blended with a smoothed version, the border left out."""
    if min(images.shape[-2:]) <= 2:
        return images
    channels = images.shape[1]
    kernel = torch.full((1, 1, 3, 3), 1 / 13, dtype=images.dtype)
    kernel[..., 1, 1] = 5 / 13
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = functional.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    return _blended(smooth, images, amount)


def posterize(images: Tensor, amount: Tensor) -> Tensor:
    """To 2 ** amount levels: amount is a number of bits, cut to a whole one."""
    levels = torch.exp2(amount.trunc())[:, None, None, None].to(images.dtype)
    return (images * levels).floor().clamp(min=0).minimum(levels - 1) / levels


def solarize(images: Tensor, amount: Tensor) -> Tensor:
    """What is as bright as `amount` or brighter is inverted."""
    return torch.where(images >= amount[:, None, None, None].to(images.dtype), 1 - images, images)


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel from its own darkest to its own lightest."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = high - low
    flat = span == 0
    return ((images - torch.where(flat, 0, low)) / torch.where(flat, 1, span)).clamp(0, 1)


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel's 256 levels as often as each other, by Pillow's rule."""
    levels = (images * 255.999).long().flatten(2)
    counts = torch.zeros((*levels.shape[:2], 256), dtype=torch.int64)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - brightest) // 255
    below = functional.pad(counts.cumsum(2)[..., :-1], (1, 0))
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    new = torch.where(step > 0, table.gather(2, levels), levels)
    return (new.to(images.dtype) / 255).view_as(images)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _factor(amount: Tensor) -> Tensor:
    return (1 + amount)[:, None, None, None]


def _blended(less: Tensor, images: Tensor, amount: Tensor) -> Tensor:
    """1 + amount of the images, and the rest of `less`: away from it above 0, towards it below."""
    factor = _factor(amount).to(images.dtype)
    return (factor * images + (1 - factor) * less).clamp(0, 1)


OPERATIONS: dict[str, Operation] = {
    "identity": identity, "shear_x": shear_x, "shear_y": shear_y, "translate_x": translate_x,
    "translate_y": translate_y, "rotate": rotate, "brightness": brightness, "colour": colour, "contrast": contrast,
    "sharpness": sharpness, "posterize": posterize, "solarize": solarize, "autocontrast": autocontrast,
    "equalize": equalize,
}  # fmt: skip
