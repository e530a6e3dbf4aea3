"""Training on Lightning: exact under interruption, silent, and told by plain data; recipes are whole runs as YAML."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig
    from .loop import Diverged, Progress, TrainResult, train
    from .plan import seconds_per_step
    from .recipes import Recipe, RecipeResult, load_recipe, run_recipe
    from .start import fresh_model

LAZY = {
    "Diverged": "loop",
    "Progress": "loop",
    "Recipe": "recipes",
    "RecipeResult": "recipes",
    "TrainConfig": "config",
    "TrainResult": "loop",
    "fresh_model": "start",
    "load_recipe": "recipes",
    "run_recipe": "recipes",
    "seconds_per_step": "plan",
    "train": "loop",
}

__all__ = [
    "Diverged",
    "Progress",
    "Recipe",
    "RecipeResult",
    "TrainConfig",
    "TrainResult",
    "fresh_model",
    "load_recipe",
    "run_recipe",
    "seconds_per_step",
    "train",
]


def __getattr__(name: str) -> Any:
    """What needs torch or pydantic, imported when first asked for."""
    if name in LAZY:
        return getattr(import_module(f"{__name__}.{LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
