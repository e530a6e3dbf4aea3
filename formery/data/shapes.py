"""Drawn shapes: one polygon a picture, light on dark, of any size, place, turn and colours.

Everything is a pure function of its seed and number, as in `drawn`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadSpec
from . import chance
from .drawn import bytes_of, write_images

if TYPE_CHECKING:
    from .images import ImageData

KINDS: dict[str, tuple[int, float]] = {
    "triangle": (3, 1.0),
    "square": (4, 1.0),
    "pentagon": (5, 1.0),
    "disc": (40, 1.0),
    "star3": (3, 0.32),
    "star4": (4, 0.38),
    "star5": (5, 0.45),
    "star7": (7, 0.5),
}
"""Corners, and the radius of the notches between them; at 1.0 the sides between corners are straight."""


def shapes(
    num_per_class: int = 100,
    *,
    size: int = 32,
    seed: int = 0,
    kinds: Sequence[str] = tuple(KINDS),
    noise: float = 0.05,
    waves: float = 0.0,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(images (N, size, size, 3) uint8, labels (N,) int64 into `kinds`), N = classes * num_per_class, classes in turn.

    `waves`: how much of the ground's light comes and goes in stripes.
    """
    if len(set(kinds)) < 2 or not set(kinds) <= KINDS.keys():
        raise BadSpec(f"kinds={list(kinds)} must be at least two of {', '.join(KINDS)}")
    labels = np.tile(np.arange(len(kinds)), num_per_class)
    return np.stack(
        [_shape(*KINDS[kinds[label]], size, seed, item, noise, waves) for item, label in enumerate(labels)]
    ), labels


def _shape(
    corners: int, notch: float, size: int, seed: int, item: int, noise: float, waves: float
) -> NDArray[np.uint8]:
    reach, turn, row, column, angle, period, *colours = chance.uniform(seed, "shape", item, 12)
    grid = (np.arange(2 * size) + 0.5) / (2 * size)  # twice as fine, then averaged: smooth edges
    rows, columns = np.meshgrid(grid, grid, indexing="ij")
    radius = 0.26 + 0.16 * reach
    up = rows - (radius + 0.02 + row * (0.96 - 2 * radius))
    right = columns - (radius + 0.02 + column * (0.96 - 2 * radius))
    inside = _inside(np.hypot(up, right) / radius, np.arctan2(up, right) + 2 * np.pi * turn, corners, notch)
    along = np.cos(angle * np.pi) * rows + np.sin(angle * np.pi) * columns
    ground = 0.5 + 0.5 * np.sin(2 * np.pi * along * (2 + 6 * period))
    first, second = 0.5 + 0.5 * np.array(colours[:3]), 0.4 * np.array(colours[3:6])
    behind = (1 - waves * ground[..., None]) * second
    fine = np.where(inside[..., None], first, behind)
    picture = fine.reshape(size, 2, size, 2, 3).mean((1, 3))
    return bytes_of(picture + noise * chance.normal(seed, "shape grain", item, picture.size).reshape(picture.shape))


def _inside(distance: NDArray[np.float64], angle: NDArray[np.float64], corners: int, notch: float) -> NDArray[np.bool_]:
    """Within the polygon whose corners are 1 from its middle, with notches of radius `notch` between them."""
    half = np.pi / corners
    folded = np.abs((angle + half) % (2 * half) - half)  # from the nearest corner, 0 to half
    inner = np.cos(half) if notch == 1.0 else notch
    # The side runs from (1, 0) to the notch at the angle `half`; inside is what lies towards the middle of it.
    x, y = distance * np.cos(folded), distance * np.sin(folded)
    end_x, end_y = inner * np.cos(half), inner * np.sin(half)
    side: NDArray[np.bool_] = (end_x - 1) * y - end_y * (x - 1) >= 0
    return side


def shapes_data(
    *,
    seed: int = 0,
    image_size: int = 32,
    num_per_class: int = 100,
    kinds: Sequence[str] = tuple(KINDS),
    noise: float = 0.05,
    waves: float = 0.0,
    shifts: int | None = None,
    flips: bool = False,
    augment: str | Mapping[str, Any] | None = None,
) -> ImageData:
    """The shapes as data."""
    from .arrays import ArrayData

    images, labels = shapes(num_per_class, size=image_size, kinds=kinds, noise=noise, waves=waves)
    return ArrayData(
        images,
        labels,
        list(kinds),
        name="shapes",
        layout="NHWC",
        seed=seed,
        shifts=shifts,
        flips=flips,
        augment=augment,
    )


def write_shapes(
    folder: str | Path, num_per_class: int = 100, *, size: int = 32, seed: int = 0, kinds: Sequence[str] = tuple(KINDS)
) -> Path:
    """The shapes as a folder of PNGs by class."""
    return write_images(folder, *shapes(num_per_class, size=size, seed=seed, kinds=kinds), tuple(kinds))
