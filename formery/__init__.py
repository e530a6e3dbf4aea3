"""formery: unified and hybrid Transformers from parts that fit each other.

import formery

model = formery.create_model("convnext_tiny", override={"body.stages.2.mixer": "attention"})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .create import create_model, list_models
from .registry import register

if TYPE_CHECKING:
    from .acceleration import accelerate
    from .model import Model

__all__ = ["Model", "accelerate", "create_model", "list_models", "register"]

_LATE = {"Model": "formery.model", "accelerate": "formery.acceleration"}
"""What imports torch, and is therefore imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'formery' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
