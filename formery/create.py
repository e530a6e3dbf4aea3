"""`create_model` and `list_models`: the door for users of timm and transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cards, spec
from .errors import BadFile, BadSpec

if TYPE_CHECKING:
    from .model import Model


def list_models(
    pattern: str = "*",
    *,
    modality: str | None = None,
    causal: bool | None = None,
    streams: bool | None = None,
    aliases: bool = False,
) -> list[str]:
    """Names of published variants that match a glob and capabilities; imports neither torch nor any system.

    `modality`: what goes in (image, text); `causal`: no token sees later ones; `streams`: any split of a sequence into
    chunks gives the output of the whole. With `aliases`, timm's and the authors' names as well.
    """
    names = []
    for name, card in cards.variants().items():
        facts = card.variants[name]
        if modality is not None and modality not in card.modalities:
            continue
        if causal is not None and bool(facts.get("causal", False)) is not causal:
            continue
        if streams is not None and bool(facts.get("streams", False)) is not streams:
            continue
        names += [n for n in (name, *(facts.get("aliases", []) if aliases else [])) if fnmatchcase(n, pattern)]
    return sorted(names)


def model_spec(
    name_or_spec: str | Mapping[str, Any],
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    override: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The resolved spec that `create_model` builds from the same arguments."""
    given = cards.spec_of(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    resolved = spec.resolve(given)
    changes: dict[str, Any] = {}
    wanted = {
        "head.num_classes": num_classes,
        "head.pool": global_pool,
        "stem.in_chans": in_chans,
        "stem.img_size": list(img_size) if isinstance(img_size, Sequence) else img_size,
    }
    for path, value in wanted.items():
        if value is None:
            continue
        part, _, option = path.partition(".")
        if option not in resolved[part]:
            argument = "global_pool" if option == "pool" else option
            raise BadSpec(
                f"{argument}: {part} {resolved[part]['kind']!r} of this model has no such option; leave it out"
            )
        changes[path] = value
    changes |= override or {}
    if changes:
        resolved = spec.override(resolved, changes)
    if drop_path_rate is not None:
        resolved = with_drop_path(resolved, drop_path_rate)
    if features_only:
        indices = None if out_indices is None else list(out_indices)
        resolved = spec.resolve({**resolved, "head": {"kind": "features", "indices": indices}})
    elif out_indices is not None:
        raise BadSpec("out_indices goes with features_only=True")
    return resolved


def with_drop_path(resolved: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """The spec with stochastic depth that rises evenly from 0 in the first block to `rate` in the last."""
    if not 0 <= rate < 1:
        raise BadSpec(f"drop_path_rate is at least 0 and below 1, got {rate}")
    paths = [path for path, role, _ in spec.walk(resolved) if role == "block"]
    ramp = {f"{path}.scheme.drop_path": rate * i / max(1, len(paths) - 1) for i, path in enumerate(paths)}
    return spec.override(resolved, ramp) if ramp else dict(resolved)


def create_model(
    name_or_spec: str | Mapping[str, Any],
    pretrained: bool | str | Path = False,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    override: Mapping[str, Any] | None = None,
) -> Model:
    """A model by name (canonical, timm's or the authors'), by spec, or a saved one by its folder.

    `pretrained` is a file or folder of published or saved weights, or `"hf-hub:owner/name"`; formery ships no weights,
    so `True` says where to get them. `override` replaces nodes of the spec by dotted globs:
    `{"body.stages.2.mixer": "gated_deltanet"}`. With `features_only` the model returns the list of its feature maps.
    UnknownName and BadSpec name the fault and the nearest match.
    """
    from .model import Model
    from .published import load_published, resize
    from .saving import fetch, loads_as_model

    if isinstance(name_or_spec, str) and _is_folder(name_or_spec):
        model = Model.from_pretrained(name_or_spec)
        if any(v is not None for v in (in_chans, img_size, drop_path_rate, override)) or features_only or pretrained:
            raise BadSpec("a saved model is built as it was saved; only num_classes and global_pool can be changed")
        if num_classes is not None and num_classes != model.num_classes:
            model.reset_classifier(num_classes, global_pool)
        return model
    resolved = model_spec(
        name_or_spec, num_classes=num_classes, in_chans=in_chans, img_size=img_size, drop_path_rate=drop_path_rate,
        global_pool=global_pool, features_only=features_only, out_indices=out_indices, override=override,
    )  # fmt: skip
    if not pretrained:
        return Model(resolved)
    if pretrained is True:
        raise BadFile(
            "formery ships no weights; give "
            f"pretrained='hf-hub:timm/{resolved.get('name')}' or the path of a checkpoint"
        )
    source = str(pretrained)
    folder = fetch(source) if source.startswith(("hf-hub:", "hf_hub:")) or Path(source).is_dir() else Path(source)
    if folder.is_dir() and loads_as_model(folder):
        return Model.from_pretrained(folder)
    headless = (
        {**resolved, "head": spec.resolve(cards.spec_of(resolved["name"]))["head"]} if features_only else resolved
    )
    model = Model(headless)
    load_published(model, folder)
    return _as_asked(model, resolved, num_classes, img_size, features_only, resize)


def _as_asked(
    model: Model, resolved: Mapping[str, Any], num_classes: int | None, img_size: Any, features_only: bool, resize: Any
) -> Model:
    """A loaded model with the classes, resolution and head that were asked for where the checkpoint has others."""
    from .model import Model

    if img_size is not None and resolved["stem"]["img_size"] != model.resolved["stem"]["img_size"]:
        resize(model, resolved["stem"]["img_size"])
    if features_only:
        bare = Model(spec.resolve({**model.resolved, "head": resolved["head"]}))
        tensors = model.state_dict()
        bare.load_state_dict({name: tensors[name] for name in bare.state_dict()})
        return bare
    if num_classes is not None and num_classes != model.num_classes:
        model.reset_classifier(num_classes)
    return model


def _is_folder(name: str) -> bool:
    return ("/" in name or "\\" in name or name in (".", "..")) and Path(name).is_dir()
