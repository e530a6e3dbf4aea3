"""What all data have in common; `ImageData` and `TextData` add how their batches are drawn."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Data(Protocol):
    """Something to train on and to be judged by."""

    @property
    def name(self) -> str:
        """The embedded name, or the path."""

    @property
    def modality(self) -> str:
        """`image` or `text`."""

    @property
    def task(self) -> str:
        """`classify` or `language`."""

    @property
    def seed(self) -> int:
        """Seed of order, windows and augmentation; the splits do not depend on it."""

    @property
    def digest(self) -> str:
        """sha256 of the content, in hexadecimal: of bytes and labels, not of names or dates."""

    def describe(self) -> dict[str, Any]:
        """Sizes of the splits, digest, seed and options, as plain JSON."""
