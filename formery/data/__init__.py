"""Data: embedded sets, folders and files of users, arrays, and small drawn sets for checks.

Every batch is a pure function of (seed, step): nothing is consumed, so a resumed training sees what an unbroken one
would have seen. `open_data` takes a name of the table below (or of the entry points `formery.data`), a path, or arrays.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .sources import open_data

if TYPE_CHECKING:
    from .arrays import ArrayData
    from .contract import Data
    from .decode import load_image
    from .images import ImageData
    from .text import TextData

INDEX = {
    "digits": "digits:digits",
    "pydoc": "pydoc:pydoc",
    "relations": "drawn:relations_data",
    "shapes": "shapes:shapes_data",
    "textures": "drawn:textures_data",
}

LAZY = {"ArrayData": "arrays", "Data": "contract", "ImageData": "images", "TextData": "text", "load_image": "decode"}

__all__ = ["ArrayData", "Data", "ImageData", "TextData", "load_image", "open_data"]


def __getattr__(name: str) -> Any:
    """The classes that need torch, imported when first asked for."""
    if name in LAZY:
        return getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
