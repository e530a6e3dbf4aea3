"""Several processes on one training: which of them speaks, and that a folder has one training at a time."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import Unwritable

LOCK = ".lock"


def is_first(devices: str | int) -> bool:
    """Whether this is the only process of a training on `devices`, or the one that speaks and writes for all.

    Lightning starts the others as this same command, with their rank in the environment; so do launchers.
    """
    alone = isinstance(devices, str) or devices == 1
    return alone or all(os.environ.get(name, "0") in ("", "0") for name in ("LOCAL_RANK", "NODE_RANK", "RANK"))


@contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Hold a folder for as long as the block lasts; Unwritable where another process holds it.

    What is held is a lock of the operating system on a file with the process's number, so that nothing is left of it
    when a process is killed.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder / LOCK)
    except BlockingIOError:
        raise Unwritable(
            f"another process{_number(folder)} is at work in {folder}; wait for it, or choose another place"
        ) from None
    except OSError as error:
        raise Unwritable(f"cannot write into {folder}: {error.strerror or error}; choose another place") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        file.close()
        for path in made:
            with suppress(OSError):  # there is something in it now
                path.rmdir()


def _locked(path: Path) -> IO[str]:
    """The file, open and locked; BlockingIOError where another has it."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # as long as the lock
        try:
            _lock(file)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.truncate(0)
                    file.write(str(os.getpid()))
                    file.flush()
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # its holder has gone and removed it between our two steps: once more


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
        return
    import errno
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # some file systems know no locks
            raise


def _number(folder: Path) -> str:
    with suppress(OSError):
        if (number := (folder / LOCK).read_text(encoding="utf-8")).isdigit():
            return f" ({number})"
    return ""
