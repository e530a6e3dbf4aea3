"""A folder of images by class: one sub-folder a class, images at any depth below it; or such folders by part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import BadData, BadFile, BadSpec, FormeryError
from .arrays import size_of
from .augment import augmentation_of
from .decode import FITS, INTERPOLATIONS, SUFFIXES, check_choice, decode, header, read_bytes
from .images import Held, ImageData, Pictures
from .splits import by_content, check_names, given_parts

WORKERS = 4
LARGEST = 64
FIRST = 3
"""Broken files that are named beside the first one."""
FEW = 4096
"""Training images that mean and deviation are taken from, where files are known by their names."""


def image_folder(
    folder: str | Path,
    *,
    seed: int = 0,
    image_size: int | Sequence[int] | None = None,
    in_chans: int | None = None,
    interpolation: str = "bilinear",
    fit: str = "squash",
    splits: Sequence[float] = (0.7, 0.15, 0.15),
    split_seed: int = 0,
    shifts: int | None = None,
    flips: bool = False,
    zoom: float = 0.0,
    rotation: float = 0.0,
    augment: str | Mapping[str, Any] | None = None,
    crop_from: int | None = None,
    known_by: Literal["content", "names"] = "content",
    broken: Literal["stop", "skip"] = "stop",
    memory: int = 2**31,
) -> ImageData:
    """The images of `folder`, classes named by its sub-folders.

    image_size: side, or (height, width), to which all are resized; else the median size, rounded to 4 and at most 64.
    in_chans: 1 or 3; else 1 where all files are grey. fit: `squash` or `crop` (see `decode`). memory: bytes of decoded
    images to hold; beyond these, images are decoded when a batch asks for them. Where the sub-folders are called train,
    val, test these are the parts, and a part that is missing is dealt out of train. augment: a preset or options, as
    `augmentation_of` takes them; crop_from: the side that random crops are taken from, where it is larger than
    image_size. known_by: `content` reads and decodes every file at once, so that copies stay together and broken files
    are found; `names` trusts paths and sizes of files, for sets too large for that, and needs image_size and in_chans.
    broken: whether files that cannot be read stop it, all of them counted, or are left out (`notes` says how many).
    """
    folder = Path(folder)
    check_choice("known_by", known_by, ("content", "names"))
    if known_by == "names" and (image_size is None or in_chans is None):
        raise BadSpec("known_by='names' opens no file before training; give image_size and in_chans too")
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if known_by == "names" and broken == "skip":
        raise BadSpec("known_by='names' opens no file before training; broken='skip' goes with 'content'")
    check_choice("fit", fit, FITS)
    check_choice("broken", broken, ("stop", "skip"))
    check_choice("in_chans", in_chans, (None, 1, 3))
    files, labels, classes, given, others = listing(folder)
    faults: dict[Path, FormeryError] = {}
    heads = [] if known_by == "names" else headers(files, faults)
    if not heads and known_by != "names":
        raise unreadable(faults, len(files))
    size = size_of(image_size) or natural_size(heads)
    preprocess: dict[str, Any] = {
        "size": list(size),
        "channels": in_chans or (1 if all(grey for _, _, grey in heads) else 3),
        "interpolation": interpolation,
        "fit": fit,
    }
    if known_by == "names":
        pictures, contents = trusted(files, folder, preprocess)
    else:
        whole = [file for file in files if file not in faults]
        pictures, contents = scan(whole, preprocess, memory, faults)
        if faults and (broken == "stop" or not contents):
            raise unreadable(faults, len(files))
        files, labels, given = without(faults, files, labels, given)
    larger = None if crop_from is None else _larger(files, preprocess, size_of(crop_from) or size, memory, known_by)
    parts = by_content(contents, labels, classes, splits, seed=split_seed, given=given)
    return ImageData(
        pictures,
        labels,
        classes,
        contents,
        parts,
        name=shown(folder),
        seed=seed,
        augmentation=augmentation_of(augment, size=size, shifts=shifts, flips=flips, zoom=zoom, rotation=rotation),
        preprocess=preprocess,
        notes={"other_files": others, "split_by": "folders" if given else known_by}
        | ({} if larger is None else {"crop_from": crop_from})
        | ({"broken": len(faults), "first_broken": str(next(iter(faults.values())))} if faults else {}),
        larger=larger,
        few=FEW if known_by == "names" else None,
    )


def headers(files: Sequence[Path], faults: dict[Path, FormeryError]) -> list[tuple[int, int, bool]]:
    """(width, height, grey or not) of the files that can be opened; the others go into `faults`."""
    found = []
    for file in files:
        try:
            found.append(header(file))
        except (BadData, BadFile) as error:
            faults[file] = error
    return found


def unreadable(faults: Mapping[Path, FormeryError], num: int) -> FormeryError:
    """The error for files that cannot be read: how many of `num` there are, why the first, and the next few."""
    (first, *others) = faults
    hint = "'train --skip-broken' (broken='skip') leaves out what cannot be read"
    if not others:
        return type(faults[first])(f"{faults[first]}; {hint}")
    also = ", ".join(shown(file) for file in others[:FIRST]) + (", ..." if len(others) > FIRST else "")
    return BadData(f"{len(faults)} of {num} images cannot be read: {faults[first]}; likewise {also}; {hint}")


def without(
    faults: Mapping[Path, FormeryError],
    files: Sequence[Path],
    labels: Sequence[int],
    given: Mapping[str, Sequence[int]] | None,
) -> tuple[list[Path], list[int], dict[str, list[int]] | None]:
    """The files, their classes and their places in the parts, but for those in `faults`."""
    kept = [item for item, file in enumerate(files) if file not in faults]
    place = {item: number for number, item in enumerate(kept)}
    parts = {name: [place[item] for item in items if item in place] for name, items in (given or {}).items()}
    return [files[item] for item in kept], [labels[item] for item in kept], parts or None


def trusted(files: Sequence[Path], folder: Path, preprocess: dict[str, Any]) -> tuple[Pictures, list[bytes]]:
    """(the images, decoded when asked for; sha256 of each file's path in the folder and size)."""
    names = (f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}" for file in files)
    return Decoded(files, preprocess), [hashlib.sha256(os.fsencode(name)).digest() for name in names]


def _larger(
    files: Sequence[Path], preprocess: dict[str, Any], size: tuple[int, int], memory: int, known_by: str
) -> Pictures:
    if min(size) < min(preprocess["size"]):
        raise BadSpec(f"crop_from={size[0]} must be at least the image_size {preprocess['size'][0]}")
    wider = preprocess | {"size": list(size)}
    return Decoded(files, wider) if known_by == "names" else scan(files, wider, memory, {})[0]


def listing(folder: Path) -> tuple[list[Path], list[int], list[str], dict[str, list[int]] | None, int]:
    """(image files, class of each, classes, items of the parts where folders give them, number of files that are no
    images).

    BadData where there are no classes, one class, a class without images, or images outside the classes.
    """
    inside = subfolders(folder)
    parts = given_parts(entry.name for entry in inside) if all(subfolders(entry) for entry in inside) else None
    roots = {parts[entry.name]: entry for entry in inside} if parts else {"train": folder}
    classes = [entry.name for entry in subfolders(roots["train"])]
    if len(classes) < 2:
        found = f"one class only ({classes[0]})" if classes else "no sub-folders"
        raise BadData(f"{roots['train']} has {found}; put the images in at least two sub-folders, one for each class")
    check_names(classes)
    files: list[Path] = []
    labels: list[int] = []
    given: dict[str, list[int]] = {}
    others = 0
    for part, root in sorted(roots.items()):
        loose = [entry for entry in sorted(root.iterdir()) if entry.is_file() and is_image(entry)]
        if loose:
            raise BadData(f"{loose[0]} belongs to no class; move it into a sub-folder of {root}, or out of it")
        for entry in subfolders(root):
            if entry.name not in classes:
                raise BadData(f"class {entry.name!r} of {root} is none of {roots['train']}; training needs it too")
            everything = list(walk(entry))
            images = [file for file in everything if is_image(file)]
            if not images:
                raise BadData(
                    f"class folder {entry} has no images ({', '.join(SUFFIXES[:5])}...); fill it or remove it"
                )
            others += len(everything) - len(images)
            given.setdefault(part, []).extend(range(len(files), len(files) + len(images)))
            files += images
            labels += [classes.index(entry.name)] * len(images)
    return files, labels, classes, given if parts else None, others


def scan(
    files: Sequence[Path], preprocess: dict[str, Any], memory: int, faults: dict[Path, FormeryError]
) -> tuple[Pictures, list[bytes]]:
    """(the images that can be read, sha256 of each one's bytes); others go into `faults`.

    All are decoded once, so that a broken file is found now.
    """
    shape = (preprocess["channels"], *preprocess["size"])
    held = torch.empty((len(files), *shape), dtype=torch.uint8) if len(files) * int(np.prod(shape)) <= memory else None

    def read(file: Path) -> tuple[bytes, NDArray[np.uint8]] | FormeryError:
        try:
            content = read_bytes(file)
            return hashlib.sha256(content).digest(), decode(content, file, preprocess)
        except (BadData, BadFile) as error:
            return error

    contents: list[bytes] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for start in range(0, len(files), 256):
            some = files[start : start + 256]
            for file, found in zip(some, pool.map(read, some), strict=True):
                if isinstance(found, FormeryError):
                    faults[file] = found
                    continue
                if held is not None:
                    held[len(contents)] = torch.from_numpy(found[1])
                contents.append(found[0])
    if held is None:
        return Decoded([file for file in files if file not in faults], preprocess), contents
    return Held(held[: len(contents)]), contents


class Decoded:
    """Images decoded from their files whenever they are asked for."""

    def __init__(self, files: Sequence[Path], preprocess: dict[str, Any]) -> None:
        self.files = files
        self.preprocess = preprocess

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = self.preprocess["size"]
        return self.preprocess["channels"], height, width

    def take(self, items: NDArray[np.int64]) -> Tensor:
        def read(item: int) -> NDArray[np.uint8]:
            return decode(read_bytes(self.files[item]), self.files[item], self.preprocess)

        with ThreadPoolExecutor(WORKERS) as pool:
            pixels = list(pool.map(read, items.tolist()))
        return torch.from_numpy(np.stack(pixels)).float() / 255


def natural_size(heads: Sequence[tuple[int, int, bool]]) -> tuple[int, int]:
    """A square side near the images' own: the median of sqrt(width * height), rounded to 4, between 8 and 64."""
    side = float(np.median([(width * height) ** 0.5 for width, height, _ in heads]))
    side = max(8, min(LARGEST, 4 * round(side / 4)))
    return int(side), int(side)


def is_image(file: Path) -> bool:
    """Judged by its suffix: a file that claims to be an image must be one."""
    return file.suffix.lower() in SUFFIXES


def subfolders(folder: Path) -> list[Path]:
    """Sub-folders by name, without hidden ones."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise closed(error) from None


def closed(error: OSError) -> BadData:
    """The error for a folder that cannot be looked into."""
    remedy = "mend its permissions" if isinstance(error, PermissionError) else "mend it"
    return BadData(f"cannot read the folder {error.filename}: {error.strerror or error}; {remedy} or remove it")


def shown(path: Path) -> str:
    """A path as text; bytes of it that are none are written with escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def walk(folder: Path) -> Iterator[Path]:
    """All files below, sorted by path, without hidden ones; links to folders are followed, each folder entered once.

    BadData where a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise closed(error) from None

    seen: set[str] = set()
    for at, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(at) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(at) / name for name in sorted(files) if not name.startswith("."))
