"""Checkpoints of transformers: their configs as specs, their folders as models.

    model = formery.interop.transformers.load("path/to/llama")           # config.json and safetensors, shards included
    spec = formery.interop.transformers.spec_from_config("path/to/llama/config.json")

transformers itself is not needed. Which configs are read is said by the cards' `model_types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import cards
from ..files import read_json

if TYPE_CHECKING:
    import torch

    from ..model import Model


def model_types() -> list[str]:
    """Every `model_type` of a config that is read."""
    return sorted(kind for card in cards.cards().values() for kind in card.model_types)


def spec_from_config(config: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """The spec that a config (its content, its file, or the folder with `config.json`) describes.

    UnknownName where no system reads its `model_type`; BadSpec where an entry asks for what formery has no part for
    (scaled rotary angles, an unknown activation), is missing, or is of the wrong type.
    """
    if isinstance(config, str | Path):
        path = Path(config)
        config = read_json(path / "config.json" if path.is_dir() else path)
    return cards.spec_of_config(config)


def load(folder: str | Path, *, override: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None) -> Model:
    """The model in a folder of transformers, in float32 unless another `dtype` is given.

    Everything is as the config says: sizes, positions, epsilons, tied tables. `override` replaces nodes of that spec.
    """
    import torch

    from ..create import model_spec
    from ..model import Model
    from ..published import load_published
    from ..saving import fetch

    path = fetch(folder)
    with torch.device("meta"):
        model = Model(model_spec(spec_from_config(path), override=override))
    model.to(dtype=dtype or torch.float32)
    load_published(model, path, own_config=True)
    return model
