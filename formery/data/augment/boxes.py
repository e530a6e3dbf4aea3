"""Random boxes inside an image, by area and aspect ratio: what random resized crops and random erasing draw."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .. import chance

TRIES = 10


def boxes(
    seed: int,
    stream: str,
    step: int,
    num: int,
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(top, left, height, width) of `num` boxes, (num, 4), and which of them were found within ten tries.

    `area`: shares of the image, drawn evenly; `ratio`: width / height, drawn evenly in its logarithm.
    """
    high, wide = size
    drawn = chance.uniform(seed, stream, step, num * TRIES * 4).reshape(num, TRIES, 4)
    pixels = high * wide * (area[0] + (area[1] - area[0]) * drawn[..., 0])
    low, top = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + (top - low) * drawn[..., 1])
    widths = np.rint(np.sqrt(pixels * aspect)).astype(np.int64)
    heights = np.rint(np.sqrt(pixels / aspect)).astype(np.int64)
    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= high)
    first = fits.argmax(1)
    who = np.arange(num)
    width, height, places = widths[who, first], heights[who, first], drawn[who, first, 2:]
    up = np.floor(places[:, 0] * (high - height + 1)).astype(np.int64)
    left = np.floor(places[:, 1] * (wide - width + 1)).astype(np.int64)
    return np.stack([up, left, height, width], 1), fits[who, first]
