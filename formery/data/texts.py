"""Text files as data: one file, or all files of a folder one behind another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import BadData
from .decode import SUFFIXES, read_bytes
from .folders import shown, walk
from .splits import PARTS, fractions_of, given_parts
from .text import TextData

NOT_TEXT = tuple(
    f".{suffix}"
    for kinds in (
        ("heic", "avif", "pdf", "docx", "xlsx"),
        ("npy", "npz", "pt", "pth", "safetensors", "pkl", "parquet", "arrow", "h5"),
        ("zip", "gz", "xz", "bz2", "zst", "7z", "tar", "so", "exe", "pyc"),
        ("wav", "mp3", "flac", "mp4", "avi", "mov"),
    )
    for suffix in kinds
)


def text_file(path: str | Path, *, seed: int = 0, splits: Sequence[float] = (0.9, 0.05, 0.05)) -> TextData:
    """The bytes of one file, split by position."""
    refuse([Path(path)])
    return TextData(read_bytes(Path(path)), name=shown(Path(path)), seed=seed, splits=splits)


def text_folder(folder: str | Path, *, seed: int = 0, splits: Sequence[float] = (0.9, 0.05, 0.05)) -> TextData:
    """The bytes of all files below `folder`, in the order of their paths, split by position.

    Where the folder has nothing but files or sub-folders called train, valid and test these are the parts instead, and
    one that is missing is cut from the end of train.
    """
    folder = Path(folder)
    files = list(walk(folder))
    if not files:
        raise BadData(f"{folder} is empty; put text files in it, or images in one sub-folder for each class")
    refuse(files)
    of_file = {file: Path(file.relative_to(folder).parts[0]).stem for file in files}
    parts = given_parts(set(of_file.values()))
    notes = {"files": len(files), "split_by": "files" if parts else "position"}
    if parts is None:
        return TextData(b"".join(map(read_bytes, files)), name=shown(folder), seed=seed, splits=splits, notes=notes)
    text = {part: b"".join(read_bytes(file) for file in files if parts[of_file[file]] == part) for part in PARTS}
    shares = dict(zip(PARTS, fractions_of(splits), strict=True))
    for part in ("test", "validation"):
        if part not in parts.values():
            keep = round(len(text["train"]) * (1 - shares[part]))
            text["train"], text[part] = text["train"][:keep], text["train"][keep:]
    bounds = (len(text["train"]), len(text["train"]) + len(text["validation"]))
    return TextData(b"".join(text[part] for part in PARTS), name=shown(folder), seed=seed, bounds=bounds, notes=notes)


def refuse(files: Sequence[Path]) -> None:
    """BadData for files whose suffix says that they hold no text."""
    for file in files:
        if file.suffix.lower() in NOT_TEXT + SUFFIXES:
            raise BadData(
                f"{file} is no text; give text files, or images (png, jpg, bmp, webp) in one sub-folder for each class"
            )
