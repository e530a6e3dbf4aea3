"""transformers: its checkpoints as our models, our models as its checkpoints, and any causal model in its Auto classes.

    model = formery.interop.transformers.load("path/to/llama")           # config.json and safetensors, shards included
    spec = formery.interop.transformers.spec_from_config("path/to/llama/config.json")
    formery.interop.transformers.save(model, "path/to/folder")           # as a model that transformers has itself
    formery.interop.transformers.save_for_auto(model, "path/to/folder")  # any causal model, with a tokenizer

Importing this package tells transformers, where it is installed, of configs of `model_type` "formery": the folders that
`save_pretrained` and `save_for_auto` write. `AutoModelForCausalLM.from_pretrained(folder)` then gives a model with
`generate`, losses and caches; no code is run from the folder. Everything else here works without transformers.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .checkpoints import config_of, load, model_types, save, spec_from_config
from .folders import save_for_auto

if TYPE_CHECKING:
    from ...model import Model

__all__ = ["config_of", "load", "model_types", "register", "save", "save_for_auto", "spec_from_config", "wrap"]


def register() -> None:
    """Tell transformers' Auto classes of formery's configs and models; again is as good as once.

    MissingExtra where transformers is not installed.
    """
    from ...extras import need
    from ..torchvision import declare_missing_operators

    declare_missing_operators()
    need("transformers", "hf")
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from .auto import FormeryConfig, FormeryForCausalLM, FormeryModel

    AutoConfig.register(FormeryConfig.model_type, FormeryConfig, exist_ok=True)
    AutoModel.register(FormeryConfig, FormeryModel, exist_ok=True)
    AutoModelForCausalLM.register(FormeryConfig, FormeryForCausalLM, exist_ok=True)


def wrap(model: Model) -> Any:
    """A causal model of ours as a `PreTrainedModel` with `generate`; its parameters are the same tensors."""
    register()
    from .auto import FormeryForCausalLM

    return FormeryForCausalLM.around(model)


if find_spec("transformers") is not None:
    register()
