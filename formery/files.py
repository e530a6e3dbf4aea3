"""Files that are whole or absent: written under a temporary name, then renamed; read with errors that explain."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import BadFile, Unwritable

CONFIG = "config.json"
"""What a folder with a saved model has, formery's or one of transformers'."""
HOST = f"{zlib.crc32(platform.node().encode()):08x}"
"""This machine, in names of temporary files: on a shared disk another's process may have the same number."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path (file or folder, whichever the caller makes) that takes the name `path` if the block succeeds.

    A file takes the place of an older one. Nothing takes that of a folder with files in it: Unwritable there, and where
    the folder of `path` cannot be made or written to. After a failure nothing is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")
    if path.exists() and not path.is_file() and not path.is_dir():  # renaming would put a file in a device's place
        raise Unwritable(f"cannot write {path}: it is a device, no file; choose another place")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and any(path.iterdir()):
            raise Unwritable(f"cannot write {path}: it is a folder with files in it; choose another place, or empty it")
        _sweep(path)
        yield temporary
        if path.is_dir() and temporary.is_dir():
            path.rmdir()  # only if it is still empty
        temporary.replace(path)
    except OSError as error:
        raise Unwritable(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):  # no folder to hold it, or no right to look: what went wrong has been said
                temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Take away what processes of this machine that are gone have left half written of `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{HOST}.*.tmp"):
        number = left.name.split(".")[-2]
        if number.isdigit() and int(number) != os.getpid() and not _alive(int(number)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no such numbers here
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) as a whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, as a whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The JSON in `path`; BadFile where it is missing or broken."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"cannot read {path}: {error}") from None
    except RecursionError:
        raise BadFile(f"{path} is nested too deep to be one of formery's") from None
    except json.JSONDecodeError as error:
        raise BadFile(
            f"{path} is not JSON (line {error.lineno}: {error.msg}); it may be truncated or edited by hand"
        ) from None
    except ValueError as error:  # a whole number of thousands of digits
        raise BadFile(f"{path} is not JSON of formery's: {error}") from None


def saved_in(folder: Path) -> Path:
    """Where the saved model of a folder lies: in the folder itself or, of a run's, in its `model/`."""
    inner = folder / "model"
    return inner if (inner / CONFIG).is_file() and not (folder / CONFIG).is_file() else folder


def sha256(path: str | Path) -> str:
    """Digest of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
