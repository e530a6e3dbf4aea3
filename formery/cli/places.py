"""Where commands read from and write to, checked before anything heavy is done."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import BadFile, BadSpec, Unwritable


def check_data(text: str) -> None:
    """BadFile, BadSpec or UnknownName where DATA is neither an embedded name nor a file or folder."""
    from ..data.sources import missing
    from ..registry import index

    if not text.strip():
        raise BadSpec(f"no data are named; give a file, a folder, or one of: {', '.join(index('data'))}")
    path = Path(text).expanduser()
    if text not in index("data") and not path.exists():
        raise missing(text, path)


def check_source(text: str) -> None:
    """BadFile unless there is a file or folder of this name."""
    if not text.strip() or not Path(text).exists():
        raise BadFile(f"{text or 'the empty name'} does not exist; give a file or a folder")


def run_folder(text: str, otherwise: str) -> str:
    """Where a run on `text` goes unless said: below runs/, by the whole name of its file or folder."""
    name = Path(text).name
    if name in ("", ".."):  # the folder we stand in, or one above it
        name = Path(text).resolve().name
    return f"runs/{name or otherwise}"


def folder_to_write(text: str) -> Path:
    """The folder that results go to; Unwritable where it cannot be made or written to."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise Unwritable(f"cannot write into {text}: it is a file; choose another --out")
    _check_above(path, text)
    return path


def file_to_write(text: str, *suffixes: str, option: str = "--out") -> Path:
    """The file that a result goes to; BadSpec for another suffix, Unwritable where it cannot be written."""
    path = Path(text)
    if path.suffix.lower() not in suffixes:
        raise BadSpec(f"{option} is a file that ends in {' or '.join(suffixes)}, got {text!r}")
    if path.is_dir():
        raise Unwritable(f"cannot write {text}: it is a folder; choose another {option}")
    if path.exists() and not path.is_file():
        raise Unwritable(f"cannot write {text}: it is a device, no file; choose another {option}")
    _check_above(path.parent, text)
    return path


def _check_above(path: Path, text: str) -> None:
    """The nearest folder that is there already takes what is written."""
    at = path.absolute()
    while not at.exists():
        at = at.parent
    if not at.is_dir():
        raise Unwritable(f"cannot write {text}: {at} is a file; choose another --out")
    try:
        with tempfile.TemporaryFile(
            dir=at
        ):  # rights alone do not tell: file systems can be read-only, or no place at all
            pass
    except OSError as error:
        raise Unwritable(f"cannot write {text}: {error.strerror or error} in {at}; choose another --out") from None
