"""Libraries that belong to extras: imported when they are needed, with an error that says how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingExtra


def need(module: str, extra: str) -> Any:
    """The module, or MissingExtra with the pip line."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        if error.name not in (None, module, name):
            raise
        raise MissingExtra(f"{name} is not installed; pip install 'formery[{extra}]'") from None
