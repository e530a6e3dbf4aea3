"""Checkpoints of transformers: their configs as specs, their folders as models, and our models as such folders.

    model = formery.interop.transformers.load("path/to/llama")           # config.json and safetensors, shards included
    spec = formery.interop.transformers.spec_from_config("path/to/llama/config.json")
    formery.interop.transformers.save(model, "path/to/folder")           # for AutoModel... .from_pretrained(folder)

transformers itself is not needed. Which configs are read is said by the cards' `model_types`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import cards
from ...errors import BadFile, BadSpec, CannotExport
from ...files import read_json, write_json
from ...tasks.language import THEIRS
from .folders import copy, tokenizer_files
from .told import kept, told

if TYPE_CHECKING:
    import torch

    from ...model import Model


def model_types() -> list[str]:
    """Every `model_type` of a config that is read."""
    return sorted(kind for card in cards.cards().values() for kind in card.model_types)


def spec_from_config(config: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """The spec that a config (its content, its file, or the folder with `config.json`) describes.

    UnknownName where no system reads its `model_type`; BadSpec where an entry asks for what formery has no part for
    (a rope stretched in another way than Llama 3.1's or YaRN's, an unknown activation), is missing, or is of the wrong
    type.
    """
    if isinstance(config, str | Path):
        path = Path(config)
        config = read_json(path / "config.json" if path.is_dir() else path)
    return cards.spec_of_config(config)


def load(folder: str | Path, *, override: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None) -> Model:
    """The model in a folder of transformers (or `hf-hub:owner/name`), in float32 unless another `dtype` is given.

    Everything is as the config says: sizes, positions, epsilons, tied tables. `override` replaces nodes of that spec.
    Tokens that begin, end and pad texts stay with the model: generation ends at them. BadWeights names tensors that are
    missing, do not fit, or have no use in that model; BadFile says so of a folder that formery saved itself.
    """
    import torch

    from ...create import model_spec
    from ...model import Model
    from ...published import load_published
    from ...saving import fetch, loads_as_model

    path = fetch(folder)
    if loads_as_model(path):
        raise BadFile(f"{folder} was saved by formery itself; formery.Model.from_pretrained opens it")
    with torch.device("meta"):
        model = Model(model_spec(spec_from_config(path), override=override))
    model.to(dtype=dtype or torch.float32)
    load_published(model, path, own_config=True, strict=True)
    if said := told(path):
        model.extra[THEIRS] = said
    return model


def config_of(model: Model) -> dict[str, Any]:
    """The config that transformers needs for this model; CannotExport where it has no model that computes the same."""
    import torch

    from ...model import Model
    from ...published import unseen_differences
    from ...spec import resolve, short

    family = cards.card_of_variant(model.name) or cards.cards().get(model.name)
    if model.plans:
        raise CannotExport(f"{model.name} was rewritten; transformers knows the published form only")
    if family is None or not family.model_types:
        raise CannotExport(
            f"{model.name} is of no system that transformers has; {', '.join(model_types())} can be saved"
        )
    try:
        config: dict[str, Any] = cards.module_of(family).to_config(model.resolved)
        described = resolve(spec_from_config(config))
    except (BadSpec, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CannotExport(f"transformers has no {family.name} like this {model.name}: {error}") from None
    described["head"] |= {key: model.resolved["head"][key] for key in ("num_classes",) if key in described["head"]}
    with torch.device("meta"):
        theirs = {name: tensor.shape for name, tensor in Model(described).state_dict().items()}
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if other := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
        raise CannotExport(f"transformers has no {family.name} like this {model.name}: it differs in {other[0]}")
    for path, mine, their in unseen_differences(model.resolved, described):
        raise CannotExport(f"in transformers' {family.name} {path} would be {short(their)}, here it is {short(mine)}")
    if "num_classes" in model.resolved["head"]:
        labels = model.extra.get("classes") or [f"LABEL_{i}" for i in range(model.num_classes)]
        config["id2label"] = {str(i): str(label) for i, label in enumerate(labels)}
        config["label2id"] = {str(label): i for i, label in enumerate(labels)}
    return config | kept(model.extra) | {"dtype": str(next(model.parameters()).dtype).removeprefix("torch.")}


def save(model: Model, folder: str | Path, *, tokenizer: str | Path | None = None) -> None:
    """Write `config.json` and `model.safetensors` as transformers writes them; CannotExport as in `config_of`.

    The names are those of published files, where they differ from the modules'. A tied table is written once.
    `tokenizer` is a folder whose tokenizer, chat template and generation settings are copied; what else is in `folder`
    stays.
    """
    from ...files import atomic
    from ...published import dialects_of, under_names
    from ...saving import write_tensors

    config = config_of(model)
    files = [] if tokenizer is None else tokenizer_files(tokenizer)
    names = [dialect.name for dialect in dialects_of(model)]
    tensors = under_names(model, "transformers_files" if "transformers_files" in names else "transformers")
    if config.get("tie_word_embeddings"):
        del tensors["lm_head.weight"]
    path = Path(folder)
    with atomic(path / "model.safetensors") as temporary:
        write_tensors(tensors, temporary, {"format": "pt"})
    write_json(path / "config.json", config)
    copy(files, path)
