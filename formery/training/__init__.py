"""Training on Lightning: exact under interruption, silent, and told by plain data; recipes are whole runs as YAML."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig
    from .loop import Diverged, Progress, TrainResult, train
    from .recipes import Recipe, RecipeResult, load_recipe, run_recipe

LAZY = {
    "Diverged": "loop",
    "Progress": "loop",
    "Recipe": "recipes",
    "RecipeResult": "recipes",
    "TrainConfig": "config",
    "TrainResult": "loop",
    "load_recipe": "recipes",
    "run_recipe": "recipes",
    "train": "loop",
}

__all__ = [
    "Diverged",
    "Progress",
    "Recipe",
    "RecipeResult",
    "TrainConfig",
    "TrainResult",
    "load_recipe",
    "run_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    """What needs torch or pydantic, imported when first asked for."""
    if name in LAZY:
        return getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
