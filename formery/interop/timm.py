"""formery's image models in timm: `import formery.interop.timm`, then `timm.create_model("formery_swin_tiny")`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from .. import cards
from ..errors import BadFile, BadSpec, BadWeights, MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

    from ..model import Model

PREFIX = "formery_"
OPTIONS = (
    *("num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "global_pool", "features_only"),
    *("out_indices", "override"),
)
"""Arguments of timm's models that formery's take as well."""
BEHIND = ("cache_dir", "pretrained_model_args")
"""What timm hands to every model and is about its own downloads."""
LISTS = ("list", "getter", "FeatureListNet", "FeatureGetterNet")
"""timm's wrappers of `features_only` that give a list of maps, which formery's models do by themselves."""
default_cfgs: dict[str, Any] = {}
"""Input, preprocessing and classes of each model, where timm looks for them."""


def register() -> list[str]:
    """Tell timm of every image variant, as `formery_NAME`; the names. Again is as good as once.

    Importing this module does so. `num_classes`, `in_chans`, `img_size`, `drop_rate`, `drop_path_rate`, `global_pool`,
    `features_only` and `out_indices` work as for timm's own. Weights come from `pretrained=PATH`, or `pretrained=True`
    with `pretrained_cfg_overlay=dict(file=PATH)`, or `checkpoint_path=PATH`: files of every dialect that
    `Model.load_published` reads, or of formery's own names. In training models give one tensor of scores, as timm's
    do, until `set_distilled_training(True)`. MissingExtra where timm is not installed.
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

    def entry(
        pretrained: Any = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ) -> Model:
        from ..create import create_model

        asked = _options({key: value for key, value in options.items() if key not in BEHIND and value is not None})
        source, fresh = pretrained, False
        if pretrained is True:
            source, fresh = _source(name, pretrained_cfg, pretrained_cfg_overlay)
        model = create_model(name, source, **asked)
        if fresh and not asked.get("features_only"):
            classes = asked.get("num_classes")
            model.reset_classifier(cards.card(name).preprocess(name)["num_classes"] if classes is None else classes)
        model.set_distilled_training(False)
        model.register_load_state_dict_pre_hook(translated)  # type: ignore[no-untyped-call]
        return model if device is None and dtype is None else model.to(device=device, dtype=dtype)

    entry.__name__ = entry.__qualname__ = PREFIX + name
    entry.__doc__ = f"formery's {name}."
    return entry


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """What `create_model` is asked for; BadSpec for what formery's models have not."""
    wrapper = given.pop("feature_cls", "list")
    if getattr(wrapper, "__name__", wrapper) not in LISTS:
        raise BadSpec(f"feature_cls: formery's models give a list of maps, not {wrapper!r}; leave it out")
    if (stride := given.pop("output_stride", 32)) != 32:
        raise BadSpec(f"output_stride: formery's models keep the strides of their stages, got {stride}; leave it out")
    if unknown := [option for option in given if option not in OPTIONS]:
        raise BadSpec(f"formery's models take no {unknown[0]}; leave it out, or give one of {', '.join(OPTIONS)}")
    return given


def _source(name: str, given: Any, overlay: dict[str, Any] | None) -> tuple[Any, bool]:
    """Where timm's configuration has weights (its own order: a state dict, a file, the hub), and whether the classifier
    is to be fresh (`num_classes=-1`, as timm's script asks for `--pretrained-path`)."""
    from timm.models import resolve_pretrained_cfg

    found = resolve_pretrained_cfg(PREFIX + name, given, overlay)
    if found.source == "hf-hub":
        source: Any = f"hf-hub:{found.hf_hub_id}"
    else:
        source = found.state_dict or found.file or (f"hf-hub:{found.hf_hub_id}" if found.hf_hub_id else None)
    if source is None:
        raise BadFile("formery ships no weights; give pretrained_cfg_overlay=dict(file=PATH), or pretrained=PATH")
    return source, found.num_classes < 0


def is_own(names: Mapping[str, Any]) -> bool:
    """Whether tensors have formery's names."""
    own = ("stem", "body", "head")
    return any(name.startswith("body.") for name in names) and all(name.partition(".")[0] in own for name in names)


def translated(model: Model, state: MutableMapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Make a state dict of published names one of formery's before it is loaded, as by timm's `checkpoint_path`.

    The model may become that of the dialect (its order of norm and pooling), but keeps classes, channels and size:
    BadWeights says of what the checkpoint has others.
    """
    from ..published import load_published
    from ..saving import blank

    if prefix or not state or is_own(state):
        return
    with blank():
        found = type(model)(model.resolved)
    load_published(found, dict(state), strict=True)
    for part, option, what in (("head", "num_classes", "classes"), ("stem", "in_chans", "channels")):
        _check_kept(model, found, part, option, what)
    _check_kept(model, found, "stem", "img_size", "pixels")
    if found.resolved != model.resolved:
        model.rebuild(found.resolved)
    state.clear()
    state.update(found.state_dict())


def _check_kept(model: Model, found: Model, part: str, option: str, what: str) -> None:
    ours, theirs = (one.resolved[part].get(option) for one in (model, found))
    if ours != theirs:
        raise BadWeights(
            f"this checkpoint has {theirs} {what}, the model {ours}; pretrained=True with "
            "pretrained_cfg_overlay=dict(file=PATH) makes one fit the other"
        )


register()
