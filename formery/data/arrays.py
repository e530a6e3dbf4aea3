"""Images and labels that are already numbers: numpy arrays, tensors, lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import BadData, BadSpec
from .augment import augmentation_of
from .decode import check_choice
from .images import Held, ImageData
from .splits import by_content

CHANNELS = (1, 3)


class ArrayData(ImageData):
    """Images and labels given as arrays or tensors.

    images: (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 with white = 255, or floats with white = `white`; labels:
    (N,) integers or words; classes: their names in order, taken from the labels unless given; layout: `NCHW` or `NHWC`
    where the shape leaves it open; image_size: resized (bilinear) to this, kept as it is unless given; augment: a
    preset or options, as `augmentation_of` takes them. BadData for shapes that do not fit, NaN, one class, or too few
    items.
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        classes: Sequence[str] | None = None,
        *,
        name: str = "arrays",
        seed: int = 0,
        layout: str | None = None,
        white: float | None = None,
        image_size: int | Sequence[int] | None = None,
        splits: Sequence[float] = (0.7, 0.15, 0.15),
        split_seed: int = 0,
        shifts: int | None = None,
        flips: bool = False,
        zoom: float = 0.0,
        rotation: float = 0.0,
        augment: str | Mapping[str, Any] | None = None,
    ) -> None:
        pixels = pixels_of(images, layout, white)
        found, numbers = numbered(labels, classes)
        if len(numbers) != len(pixels):
            raise BadData(f"there are {len(pixels)} images and {len(numbers)} labels; give one label an image")
        contents = [hashlib.sha256(image.tobytes()).digest() for image in pixels.numpy()]
        parts = by_content(contents, numbers, found, splits, seed=split_seed)
        pixels = resized(pixels, size_of(image_size) or (pixels.shape[2], pixels.shape[3]))
        super().__init__(
            Held(pixels),
            numbers,
            found,
            contents,
            parts,
            name=name,
            seed=seed,
            augmentation=augmentation_of(
                augment,
                size=(pixels.shape[2], pixels.shape[3]),
                shifts=shifts,
                flips=flips,
                zoom=zoom,
                rotation=rotation,
            ),
            preprocess={},
        )


def pixels_of(images: Any, layout: str | None = None, white: float | None = None) -> Tensor:
    """(N, C, H, W): uint8 as it came, anything else as float32 with white = 1; BadData where it is no such array."""
    array = as_array(images, "images")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype.kind not in "uif":
        raise BadData(f"images have dtype {array.dtype}; give numbers")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = array if layout_of(array.shape, layout) == "NCHW" else array.transpose(0, 3, 1, 2)
    else:
        raise BadData(f"images have shape {array.shape}; give (N, H, W), (N, C, H, W) or (N, H, W, C)")
    if not array.size:
        raise BadData(f"images have shape {array.shape}: there is nothing in them")
    if array.dtype == np.uint8 and white is None:
        return torch.from_numpy(np.ascontiguousarray(array))
    if white is None and array.dtype.kind != "f":
        raise BadData(
            f"images are {array.dtype}; say which number is white (white=...), or give uint8 with white = 255"
        )
    broken = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
    if len(broken):
        raise BadData(
            f"{len(broken)} of {len(array)} images hold NaN or infinity (first: number {broken[0]}); remove them"
        )
    if white is not None and not white > 0:
        raise BadSpec(f"white={white} must be above 0: the number that stands for white")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array / (1.0 if white is None else white), dtype=np.float32)
    if not np.isfinite(array).all():
        raise BadData("images hold numbers beyond the range of float32; scale them down")
    return torch.from_numpy(array)


def as_array(values: Any, what: str) -> NDArray[Any]:
    """numpy's view of an array, tensor or list; BadData where rows differ in length."""
    try:
        return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (ValueError, TypeError) as error:
        raise BadData(f"{what} do not form one array ({' '.join(str(error).split())}); give them one shape") from None


def layout_of(shape: Sequence[int], layout: str | None) -> str:
    """`NCHW` or `NHWC`; BadSpec where the shape leaves it open and nobody said."""
    if layout is not None:
        check_choice("layout", layout, ("NCHW", "NHWC"))
        return layout
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first == last:
        raise BadSpec(
            f"images of shape {tuple(shape)} may have their channels first or last; say layout='NCHW' or 'NHWC'"
        )
    return "NCHW" if first else "NHWC"


def numbered(labels: Any, classes: Sequence[str] | None) -> tuple[list[str], list[int]]:
    """(names of the classes, class of each label); labels are positions in `classes` or names, and sorted without it.

    BadData for labels that are no classes, or fewer than two of them.
    """
    array = label_array(labels)
    found, numbers = np.unique(array, return_inverse=True)
    names = [str(value) for value in (found if classes is None else classes)]
    if len(set(names)) != len(names):
        raise BadSpec("classes holds a name twice; give each class a name of its own")
    if classes is not None:
        known: dict[Any, int] = {
            key: place for place, key in enumerate(names if array.dtype.kind == "U" else range(len(names)))
        }
        odd = [value for value in found.tolist() if value not in known]
        if odd:
            raise BadData(f"label {odd[0]} is none of the {len(names)} classes; give their names, or numbers from 0")
        numbers = np.array([known[value] for value in found.tolist()], dtype=np.int64)[numbers]
    if len(found) < 2:
        what = f"there is one class only ({found[0]})" if len(found) else "there are no labels"
        raise BadData(f"{what}; give at least two classes to tell apart")
    return names, [int(number) for number in numbers]


def label_array(labels: Any) -> NDArray[Any]:
    """(N,) whole numbers or words; BadData for anything else."""
    array = as_array(labels, "labels")
    if array.ndim != 1:
        raise BadData(f"labels have shape {array.shape}; give (N,), one an image")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.floor(array)).any():
            raise BadData("labels hold fractions, NaN or infinity; give whole numbers or words, one for each class")
        return array.astype(np.int64)
    if array.dtype.kind == "O":
        if not all(isinstance(value, (str, int)) for value in array):
            raise BadData("labels hold something that is neither a whole number nor a word; fill in what is missing")
        return array.astype(np.int64 if all(isinstance(value, int) for value in array) else str)
    if array.dtype.kind not in "biuUS":
        raise BadData(f"labels have dtype {array.dtype}; give whole numbers or words, one for each class")
    return array.astype(str) if array.dtype.kind == "S" else array


def size_of(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(H, W) of one number or two; BadSpec where it is no size."""
    if image_size is None:
        return None
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or any(not isinstance(side, int) or not 1 <= side <= 4096 for side in sides):
        raise BadSpec(f"image_size={image_size!r} must be one number of pixels, or (height, width), between 1 and 4096")
    return sides[0], sides[1]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing: (N, C, H, W) -> (N, C, *size) float32; untouched where it has that size."""
    if tuple(images.shape[2:]) == size:
        return images
    floats = images.float() / 255 if images.dtype == torch.uint8 else images
    return functional.interpolate(floats, size, mode="bilinear", align_corners=False, antialias=True)
