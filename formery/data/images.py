"""Labelled images in three parts, drawn in batches that depend on (seed, step) alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadData, BadSpec
from . import chance
from .augment import Augmentation
from .splits import Parts, digest_of, repeats

CHUNK = 512


class Pictures(Protocol):
    """Images of one shape, at hand or decoded when asked for."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""

    def take(self, items: NDArray[np.int64]) -> Tensor:
        """The images of these items, (n, C, H, W) float32, where 1 is white."""


class Held:
    """Images in memory: uint8 (N, C, H, W), of which 255 is white, or float32, of which 1 is."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, items: NDArray[np.int64]) -> Tensor:
        images = self.images[torch.from_numpy(np.ascontiguousarray(items))]
        return images.float() / 255 if images.dtype == torch.uint8 else images


class Part:
    """One part of the data, as it is: no augmentation, every item once, the last batch as small as it comes."""

    def __init__(self, data: ImageData, items: NDArray[np.int64]) -> None:
        self.data = data
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return self.data.labels[torch.from_numpy(self.items)]

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(images (b, C, H, W) float32, labels (b,) int64), b <= batch_size."""
        check_batch(batch_size)
        for start in range(0, len(self.items), batch_size):
            yield self.data.batch_of(self.items[start : start + batch_size])


class ImageData:
    """Images with one label each.

    pictures: the images, of one shape; labels: class of each, an index into `classes`; contents: digest of each, by
    which `parts` were dealt; seed: of order and augmentation; preprocess: what `decode.load_image` needs beside mean
    and std to read a file as these were read; larger: the same images at another size, for random crops; few: how many
    training images mean and deviation are taken from, all unless given. BadData where those are all the same.
    """

    modality = "image"
    task = "classify"

    def __init__(
        self,
        pictures: Pictures,
        labels: Sequence[int],
        classes: Sequence[str],
        contents: Sequence[bytes],
        parts: Parts,
        *,
        name: str,
        seed: int = 0,
        augmentation: Augmentation,
        preprocess: dict[str, Any],
        notes: dict[str, Any] | None = None,
        larger: Pictures | None = None,
        few: int | None = None,
    ) -> None:
        if larger is not None and augmentation.crop is None:
            raise BadSpec("crop_from is the size that random crops are taken from; give augment's crop too")
        self.larger = pictures if larger is None else larger
        self.options: dict[str, Any] = {}
        """With which `open_data` opened it, as far as they decide which images there are and the part of each."""
        self.pictures = pictures
        self.labels = torch.tensor(list(labels), dtype=torch.int64)
        self.classes = list(classes)
        self.parts = parts
        self.name = name
        self.seed = seed
        self.augmentation = augmentation
        self.digest = digest_of(contents, labels, classes)
        self.notes = {**repeats(contents, labels, parts), **(notes or {})}
        self.in_chans, height, width = pictures.shape
        if max(augmentation.shifts * 2, 1) > min(height, width):
            raise BadSpec(f"shifts={augmentation.shifts} leave nothing of images of {height}x{width} pixels")
        self.image_size: int | tuple[int, int] = height if height == width else (height, width)
        mean, std = statistics(pictures, parts.train[:few], name)
        self._mean = torch.tensor(mean, dtype=torch.float32)[:, None, None]
        self._std = torch.tensor(std, dtype=torch.float32)[:, None, None]
        self.preprocess: dict[str, Any] = {
            "mean": mean,
            "std": std,
            "size": [height, width],
            "channels": self.in_chans,
            "interpolation": "bilinear",
            "fit": "squash",
        } | preprocess

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def num_train(self) -> int:
        """How many images the training part has."""
        return len(self.parts.train)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Training steps after which every training image has been seen at least once."""
        return -(-self.num_train * self.augmentation.repeats // check_batch(batch_size))

    def train_items(self, step: int, batch_size: int) -> NDArray[np.int64]:
        """Which items step `step` trains on.

        The epochs' permutations stand one behind another and step `step` reads places [step * batch_size, (step + 1) *
        batch_size): every item once an epoch, every batch full. With repeated augmentation every place is read as often
        as that says, one time behind another.
        """
        num = self.num_train
        order = np.arange(step * check_batch(batch_size), (step + 1) * batch_size) // self.augmentation.repeats
        epochs, places = np.divmod(order, num)
        chosen = [chance.permutation(self.seed, "epoch", int(e), num)[places[epochs == e]] for e in np.unique(epochs)]
        items: NDArray[np.int64] = self.parts.train[np.concatenate(chosen)]
        return items

    def train_batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """(images (B, C, H, W) float32, normalised, augmented; labels (B,) int64): a pure function of (seed, step).

        Where images are mixed, the labels are targets (B, classes) float32.
        """
        return self.shown(self.train_items(step, batch_size), step)

    def shown(self, items: NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """These items as step `step` of a training shows them."""
        _, height, width = self.pictures.shape
        images = self.augmentation(self.larger.take(items), self.seed, step, (height, width))
        images = self.augmentation.erased(self.normalise(images), self.seed, step)
        labels = self.labels[torch.from_numpy(items)]
        return self.augmentation.mixed(images, labels, self.num_classes, self.seed, step)

    def sample(self, num: int) -> Tensor:
        """Up to `num` training images without augmentation, for calibration: (n, C, H, W)."""
        order = chance.permutation(self.seed, "sample", 0, self.num_train)[:num]
        return self.batch_of(self.parts.train[order])[0]

    def train(self) -> Part:
        """The training part without augmentation."""
        return Part(self, self.parts.train)

    def validation(self) -> Part:
        """The part to choose by."""
        return Part(self, self.parts.validation)

    def test(self) -> Part:
        """The part to judge by: for the end, once."""
        return Part(self, self.parts.test)

    def validation_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every validation image once."""
        return self.validation().batches(batch_size)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every test image once."""
        return self.test().batches(batch_size)

    def normalise(self, images: Tensor) -> Tensor:
        """(n, C, H, W) with white = 1 -> zero mean and unit deviation of each channel over the training part."""
        return (images - self._mean) / self._std

    def normalise_as(self, preprocess: Mapping[str, Any]) -> None:
        """From now on normalise by another's mean and deviation: those that a trained model has learned to expect."""
        mean, std = (torch.tensor(preprocess[name], dtype=torch.float32) for name in ("mean", "std"))
        if mean.shape != (self.in_chans,) or std.shape != (self.in_chans,):
            raise BadSpec(f"mean and std are lists of {self.in_chans}, one for each channel of {self.name}")
        self._mean, self._std = mean[:, None, None], std[:, None, None]
        self.preprocess |= {"mean": list(preprocess["mean"]), "std": list(preprocess["std"])}

    def batch_of(self, items: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Normalised images and labels of these items."""
        return self.normalise(self.pictures.take(items)), self.labels[torch.from_numpy(np.ascontiguousarray(items))]

    def describe(self) -> dict[str, Any]:
        """Plain JSON for reports."""
        return {
            "name": self.name,
            "modality": self.modality,
            "task": self.task,
            "digest": self.digest,
            "seed": self.seed,
            "splits": self.parts.sizes(),
            "classes": self.classes,
            "preprocess": self.preprocess,
            "augmentation": self.augmentation.describe(),
            **self.notes,
        }


def check_batch(batch_size: int) -> int:
    """BadSpec where there is no batch of that size."""
    if batch_size < 1:
        raise BadSpec(f"batch size {batch_size} must be 1 or more")
    return batch_size


def statistics(pictures: Pictures, items: NDArray[np.int64], name: str) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, to six digits; a channel that never changes gets deviation 1.

    BadData where all these images are the same one: there is nothing to tell classes apart by.
    """
    first = pictures.take(items[:1])
    # Sums of differences from the first image's mean: sums of squares far from zero would cancel.
    offset = first.double().mean((0, 2, 3))
    total, square, same = torch.zeros_like(offset), torch.zeros_like(offset), True
    for start in range(0, len(items), CHUNK):
        images = pictures.take(items[start : start + CHUNK])
        same = same and bool((images == first).all())
        apart = images.double() - offset[:, None, None]
        total += apart.sum((0, 2, 3))
        square += apart.square().sum((0, 2, 3))
    if same:
        raise BadData(f"all training images of {name} are identical; there is nothing to learn from them")
    num = len(items) * first[0, 0].numel()
    mean = offset + total / num
    deviation = (square / num - (total / num).square()).clamp(min=0).sqrt()
    deviation = torch.where(deviation > 1e-7 * mean.abs(), deviation, 1.0)
    return [six_digits(value) for value in mean.tolist()], [six_digits(value) for value in deviation.tolist()]


def six_digits(value: float) -> float:
    """Short in JSON, and the same number when read back."""
    return float(f"{value:.6g}")
