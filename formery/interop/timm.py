"""formery's image models in timm: `import formery.interop.timm`, then `timm.create_model("formery_swin_tiny")`."""

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
WRAPPERS = ("feature_cls",)
"""Which of timm's wrappers is to pick the maps of `features_only`; formery's models give them by themselves."""
default_cfgs: dict[str, Any] = {}
"""Input, preprocessing and classes of each model, where timm looks for them."""


def register() -> list[str]:
    """Tell timm of every image variant, as `formery_NAME`; the names. Again is as good as once.

    Importing this module does so. `num_classes`, `in_chans`, `img_size`, `drop_path_rate`, `global_pool`,
    `features_only` and `out_indices` work as for timm's own; `pretrained` takes the path of a checkpoint. MissingExtra
    where timm is not installed.
    """
    try:
        from timm.models import generate_default_cfgs, is_model, register_model
    except ImportError:
        raise MissingExtra("timm is not installed; pip install 'formery[timm]'") from None
    known = {name: card for name, card in sorted(cards.variants().items()) if "image" in card.modalities_of(name)}
    default_cfgs.update(generate_default_cfgs({PREFIX + name: _facts(card, name) for name, card in known.items()}))
    for name in known:
        if not is_model(PREFIX + name):
            entry = _entry(name)
            setattr(sys.modules[__name__], entry.__name__, entry)  # timm looks an entry up in its module
            register_model(entry)
    return [PREFIX + name for name in known]


def _facts(card: cards.Card, name: str) -> dict[str, Any]:
    """What timm's `PretrainedCfg` says of a model, without building it."""
    pre = card.preprocess(name)
    return {
        "input_size": (3, pre["size"], pre["size"]),
        "mean": tuple(pre["mean"]),
        "std": tuple(pre["std"]),
        "interpolation": pre["interpolation"],
        "crop_pct": pre["crop_pct"],
        "num_classes": pre["num_classes"],
        "fixed_input_size": pre["fixed_input_size"],
        "paper_ids": f"arXiv:{card.data['arxiv']}" if card.data.get("arxiv") else None,
        "paper_name": card.title,
    }


def _entry(name: str) -> Callable[..., Model]:
    """The function that timm calls for a variant."""

    def entry(pretrained: Any = False, **options: Any) -> Model:
        from ..create import create_model

        return create_model(name, pretrained, **{k: v for k, v in options.items() if k not in OWN + WRAPPERS})

    entry.__name__ = entry.__qualname__ = PREFIX + name
    entry.__doc__ = f"formery's {name}."
    return entry


register()
