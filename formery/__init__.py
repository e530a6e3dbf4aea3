"""formery: unified and hybrid Transformers from parts that fit each other.

import formery

model = formery.create_model("convnext_tiny", override={"body.stages.2.mixer": "attention"})
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes as long to import as all the rest of this

if TYPE_CHECKING:
    from typing import Any

    from .acceleration import accelerate
    from .create import create_model, list_models
    from .model import Model
    from .registry import register

__all__ = ["Model", "accelerate", "create_model", "list_models", "register"]

_HOMES = {
    "Model": "model",
    "accelerate": "acceleration",
    "create_model": "create",
    "list_models": "create",
    "register": "registry",
}
"""Nothing is imported before it is used: the command line is there at once, and can be interrupted at once."""


def __getattr__(name: str) -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
