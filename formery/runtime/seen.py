"""What goes by while predicting: how many files were broken, how many are right by their folders, some to look at."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BadData, BadSpec
from ..files import atomic
from . import facts

MOST, COLUMNS = 36, 9
"""Images of a sheet, and of a row of it."""


class Seen:
    """Counts rows of `predict` as they go by; memory does not grow with them.

    A file's class is known where its folder is called like one.
    """

    def __init__(self, extra: Mapping[str, Any], *, wants_pictures: bool = False) -> None:
        self.extra, self.classes = extra, set(extra.get("classes") or ())
        if wants_pictures and not self.classes:
            raise BadSpec("--sheet is for classes of images; leave it out")
        self.rows = self.broken = self.labelled = self.right = 0
        self.reason = ""
        self._mistakes: list[tuple[float, int, dict[str, Any]]] = []
        self._others: list[dict[str, Any]] = []
        self._apart = 1

    def watch(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows as they come; BadData behind the last one where not a single file could be read."""
        for row in rows:
            self._note(row)
            yield row
        if self.rows and self.broken == self.rows:
            raise BadData(f"none of {self.rows} files could be read: {self.reason}")

    def _note(self, row: dict[str, Any]) -> None:
        self.rows += 1
        if row.get("error"):
            self.broken += 1
            self.reason = self.reason or str(row["error"])
            return
        truth = self.truth(row)
        if truth is not None:
            self.labelled += 1
            self.right += truth == row["class"]
        if truth is not None and truth != row["class"]:
            heapq.heappush(self._mistakes, (row["probability"], -self.rows, row))
            if len(self._mistakes) > MOST // 2:
                heapq.heappop(self._mistakes)
        elif self.rows % self._apart == 0:
            self._others.append(row)
            if len(self._others) == 2 * MOST:  # from all that has gone by, evenly
                self._others, self._apart = self._others[1::2], 2 * self._apart

    def truth(self, row: Mapping[str, Any]) -> str | None:
        """The class that a file's folder names."""
        name = Path(row["file"]).parent.name
        return name if name in self.classes and "class" in row else None

    @property
    def judged(self) -> dict[str, Any]:
        """Accuracy over the files whose folder names a class; nothing where there are none."""
        return {"accuracy": self.right / self.labelled, "labelled": self.labelled} if self.labelled else {}

    def draw(self, path: Path) -> None:
        """The surest mistakes, then other images, as a contact sheet."""
        import torch

        from ..data.decode import decode, read_bytes
        from ..data.sheet import evenly, judged, sheet

        mistakes = [row for _, _, row in sorted(self._mistakes, reverse=True)]
        preprocess = facts.read(facts.ImageFacts, self.extra).preprocess.model_dump()
        cells = []
        for row in mistakes + evenly(self._others, MOST - len(mistakes)):
            file = Path(row["file"])
            pixels = torch.from_numpy(decode(read_bytes(file), file, preprocess))
            cells.append(judged(pixels, row["class"], row["probability"], self.truth(row)))
        wrong = f": {self.labelled - self.right} of {self.labelled} wrong" if self.labelled else ""
        with atomic(path) as temporary:
            sheet(cells, COLUMNS, f"{self.rows - self.broken} images{wrong}").save(temporary, format="PNG")
