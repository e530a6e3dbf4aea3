"""formery's image models in timm: `timm.create_model("formery_vit_tiny")` once `register()` was called."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import cards
from ..errors import MissingExtra

if TYPE_CHECKING:
    from ..model import Model

PREFIX = "formery_"
OWN = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""What timm hands to every model and is about its own downloads."""


def register() -> list[str]:
    """Tell timm of every image variant, as `formery_NAME`; the names. Again is as good as once.

    `num_classes`, `in_chans`, `img_size`, `drop_path_rate`, `global_pool`, `features_only` and `out_indices` work as
    for timm's own; `pretrained` takes the path of a checkpoint. MissingExtra where timm is not installed.
    """
    try:
        from timm.models import is_model, register_model
    except ImportError:
        raise MissingExtra("timm is not installed; pip install 'formery[timm]'") from None
    names = [name for name, card in sorted(cards.variants().items()) if "image" in card.modalities]
    for name in names:
        if not is_model(PREFIX + name):
            entry = _entry(name)
            setattr(sys.modules[__name__], entry.__name__, entry)  # timm looks an entry up in its module
            register_model(entry)
    return [PREFIX + name for name in names]


def _entry(name: str) -> Callable[..., Model]:
    """The function that timm calls for a variant."""

    def entry(pretrained: Any = False, **options: Any) -> Model:
        from ..create import create_model

        return create_model(name, pretrained, **{key: value for key, value in options.items() if key not in OWN})

    entry.__name__ = entry.__qualname__ = PREFIX + name
    entry.__doc__ = f"formery's {name}."
    return entry
