"""What a fit has done so far, on disk: each result once, written whole, so that a resumed run repeats none of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BadSpec, Unwritable
from ..files import read_json, write_json

T = TypeVar("T")


class Journal:
    """Results by name, a JSON file each below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '.')}.json"

    def has(self, name: str) -> bool:
        """Whether a result is there."""
        return self._path(name).is_file()

    def get(self, name: str) -> Any:
        """A result that is there."""
        return read_json(self._path(name))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """The result called `name`: from an earlier run if it is there, otherwise made now and kept."""
        if not self.has(name):
            write_json(self._path(name), plain(make()))
        value: T = self.get(name)
        return value

    def forget(self, name: str) -> None:
        """Forget a result, if it is there, so that it is made again."""
        self._path(name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget everything, as if nothing had been begun."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, identity: dict[str, Any], *, resume: bool) -> None:
        """Take the folder for a run of this identity. Unwritable where another run is there that is not to be resumed,
        BadSpec where it is one of other data or settings."""
        if not self.has("identity"):
            try:
                self.once("identity", lambda: identity)
            except BaseException:
                self.discard()
                raise
            return
        if not resume:
            raise Unwritable(f"{self.folder.parents[1]} holds a fit; go on with --resume, or choose another --out")
        before, now = self.get("identity"), plain(identity)
        for key in now:
            if before.get(key) != now[key]:
                changed = _differences(before.get(key), now[key])
                raise BadSpec(
                    f"the fit in {self.folder.parents[1]} was started with other {key}: {changed}; give the same, or "
                    "choose another --out"
                )


def _differences(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [f"{k} {before.get(k)!r}, now {now.get(k)!r}" for k in now if before.get(k) != now.get(k)]
        return "; ".join(changed[:3])
    return f"{before!r}, now {now!r}"


def plain(value: Any) -> Any:
    """The value as JSON gives it back, so that a fresh and a resumed run see the same."""
    return json.loads(json.dumps(value))
