"""Small drawn data with a known structure, for checks: textures, relations between patches, parity of bits.

Everything is a pure function of its seed and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadSpec
from ..files import atomic
from . import chance

if TYPE_CHECKING:
    from torch import Tensor

    from .images import ImageData

TEXTURES = ("blobs", "dots", "stripes")
RELATIONS = ("near differ, far differ", "near differ, far agree", "near agree, far differ", "near agree, far agree")

# Four marks of 4x4 pixels with equal ink, so that brightness tells nothing: two for the near pair, two for the far.
MARKS = np.array(
    [
        [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
        [[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]],
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
        [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]],
    ],
    dtype=np.float64,
)


def textures(num_per_class: int = 60, *, size: int = 32, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Blobs, dots and stripes of random scale, angle and pair of colours.

    (images (N, size, size, 3) uint8, labels (N,) int64 into `TEXTURES`), N = 3 * num_per_class, classes in turn.
    Colours are drawn alike for all classes: only the texture tells them apart.
    """
    labels = np.tile(np.arange(len(TEXTURES)), num_per_class)
    images = [_texture(TEXTURES[label], size, seed, item) for item, label in enumerate(labels)]
    return np.stack(images), labels


def _texture(kind: str, size: int, seed: int, item: int) -> NDArray[np.uint8]:
    scale, angle, shift, side, *colours = chance.uniform(seed, "texture", item, 10)
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    period = 4 + 4 * scale
    turn = np.pi * angle
    along = columns * np.cos(turn) + rows * np.sin(turn) + period * shift
    across = rows * np.cos(turn) - columns * np.sin(turn) + period * side
    if kind == "stripes":
        level = 0.5 + 0.5 * np.sin(2 * np.pi * along / period)
    elif kind == "dots":
        level = np.clip(1.5 * np.cos(2 * np.pi * along / period) * np.cos(2 * np.pi * across / period), 0, 1)
    else:
        level = _blobs(size, period, seed, item)
    dark, light = np.array(colours[:3]) * 0.4, 0.6 + 0.4 * np.array(colours[3:])
    picture = dark + level[..., None] * (light - dark)
    noise = chance.normal(seed, "grain", item, picture.size).reshape(picture.shape)
    return bytes_of(picture + 0.03 * noise)


def _blobs(size: int, period: float, seed: int, item: int) -> NDArray[np.float64]:
    """White noise, smoothed by a Gaussian of about `period` across, on a torus, stretched to 0..1."""
    noise = chance.normal(seed, "blobs", item, size * size).reshape(size, size)
    waves = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((waves * period) ** 2))).real
    level: NDArray[np.float64] = np.clip(0.5 + (smooth - smooth.mean()) / (2 * smooth.std()), 0, 1)
    return level


def bytes_of(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0..1 -> 0..255, rounded; what lies outside is clipped."""
    pixels: NDArray[np.uint8] = np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)
    return pixels


def textures_data(
    *,
    seed: int = 0,
    image_size: int = 32,
    num_per_class: int = 60,
    shifts: int | None = None,
    flips: bool = False,
    augment: str | Mapping[str, Any] | None = None,
) -> ImageData:
    """The textures as data."""
    from .arrays import ArrayData

    images, labels = textures(num_per_class, size=image_size)
    return ArrayData(
        images, labels, TEXTURES, name="textures", layout="NHWC", seed=seed, shifts=shifts, flips=flips, augment=augment
    )


def write_images(
    folder: str | Path, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...]
) -> Path:
    """One PNG an image in one sub-folder a class: `folder/stripes/00002.png`; images (N, H, W) or (N, H, W, 3)."""
    from PIL import Image

    with atomic(folder) as temporary:
        for name in classes:
            (temporary / name).mkdir(parents=True)
        for item, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(temporary / classes[label] / f"{item:05d}.png")
    return Path(folder)


def write_textures(folder: str | Path, num_per_class: int = 60, *, size: int = 32, seed: int = 0) -> Path:
    """The textures as a folder of PNGs by class."""
    return write_images(folder, *textures(num_per_class, size=size, seed=seed), TEXTURES)


def relations(
    num: int, *, seed: int = 0, step: int = 0, cells: int = 12, noise: float = 0.2
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images whose class is how distant patches relate, and in no patch by itself.

    A map of `cells` x `cells` cells of 4x4 pixels holds two pairs of marks among noise. The near pair, two cells long,
    touches across the middle line, horizontal or vertical, which merging cells two by two does not cross while the side
    is a multiple of 4. The far pair lies in opposite corners, each mark on 2x2 cells. The class says of each pair
    whether its marks agree: `RELATIONS`, label = 2 * (near agree) + (far agree). Every mark is as likely in every class
    and the marks of a pair only add up in a mean over patches that never met, so a linear readout of that mean is right
    one time in four; mixing with neighbours tells the near pair; the far pair needs mixing across the map.

    (images (num, 4 * cells, 4 * cells) uint8, labels (num,) int64); `cells` even, 8 or more.
    """
    if cells < 8 or cells % 2:
        raise BadSpec(f"cells={cells} must be even and 8 or more, for the pairs to keep apart")
    coins = chance.integers(seed, "relations", step, 6 * num, 2).reshape(6, num)
    near, far, near_agree, far_agree, upright, mirrored = coins
    # Kept out of the corners, where the far pair is.
    along = 2 + chance.integers(seed, "relations place", step, num, cells - 5)
    side = 4 * cells
    canvas = np.zeros((num, cells, cells, 4, 4))
    who = np.arange(num)
    for across, mark in ((cells // 2 - 1, near), (cells // 2, near ^ 1 ^ near_agree)):
        for place in (along, along + 1):
            canvas[who, np.where(upright, across, place), np.where(upright, place, across)] = MARKS[mark]
    for end, mark in ((0, far), (cells - 2, far ^ 1 ^ far_agree)):
        column = np.where(mirrored, cells - 2 - end, end)
        for down, right in np.ndindex(2, 2):
            canvas[who, end + down, column + right] = MARKS[2 + mark]
    flat = canvas.transpose(0, 1, 3, 2, 4).reshape(num, side, side)
    grain = chance.uniform(seed, "relations noise", step, num * side * side).reshape(num, side, side)
    return bytes_of(flat * (1 - noise) + noise * grain), 2 * near_agree + far_agree


def relations_data(*, seed: int = 0, num: int = 6000, cells: int = 12, noise: float = 0.2) -> ImageData:
    """The relations as data; without shifts, which would tear the marks from the patches."""
    from .arrays import ArrayData

    images, labels = relations(num, cells=cells, noise=noise)
    return ArrayData(images, labels, RELATIONS, name="relations", seed=seed, shifts=0)


def parity(seed: int, step: int, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
    """(bits (B, L), running parity (B, L)), int64: parity[:, t] = (bits[:, 0] + ... + bits[:, t]) mod 2.

    The smallest state that must be tracked exactly (Grazzi et al., Unlocking state-tracking in linear RNNs through
    negative eigenvalues, 2025): a single wrong step is never forgotten.
    """
    import torch

    bits = torch.from_numpy(chance.integers(seed, "parity", step, batch_size * length, 2)).view(batch_size, length)
    return bits, bits.cumsum(1) % 2
