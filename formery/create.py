"""`create_model` and `list_models`: the door for users of timm and transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cards, registry, spec
from .errors import BadFile, BadSpec, BadWeights, UnknownName
from .files import saved_in
from .layout import ramp
from .registry import nearest

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

    `modality`: what goes in (image, video, text); `causal`: no token sees later ones; `streams`: any split of a
    sequence into chunks gives the output of the whole. With `aliases`, timm's and the authors' names as well.
    UnknownName for a modality that no model takes.
    """
    known = sorted({kind for card in cards.cards().values() for kind in card.modalities})
    if modality is not None and modality not in known:
        raise UnknownName(f"no model takes {modality!r}; {nearest(modality, known)}")
    names = []
    for name, card in cards.variants().items():
        facts = card.variants[name]
        if modality is not None and modality not in card.modalities_of(name):
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
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    override: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The resolved spec that `create_model` builds from the same arguments."""
    given = cards.spec_of(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec
    resolved = spec.resolve(given)
    changes: dict[str, Any] = {}
    wanted = {
        "head.num_classes": num_classes,
        "head.pool": global_pool,
        "head.dropout": drop_rate,
        "stem.in_chans": in_chans,
        "stem.img_size": list(img_size) if isinstance(img_size, Sequence) else img_size,
    }
    for path, value in wanted.items():
        if value is None:
            continue
        part, _, option = path.partition(".")
        if option not in resolved[part]:
            argument = {"pool": "global_pool", "dropout": "drop_rate"}.get(option, option)
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
        resolved = spec.resolve({**resolved, "head": {"kind": "features", "indices": _indices(out_indices)}})
    elif out_indices is not None:
        raise BadSpec("out_indices goes with features_only=True")
    return resolved


def _indices(wanted: int | Sequence[int] | None) -> list[int] | int | None:
    """Numbers of maps, or how many of the last, as the head takes them."""
    refusal = BadSpec(f"out_indices are the numbers of some maps, or how many of the last ones, got {wanted!r}")
    if wanted is None:
        return None
    try:
        found = [index(i) for i in wanted] if isinstance(wanted, Iterable) else index(wanted)
    except TypeError:
        raise refusal from None
    if not found or (isinstance(found, int) and found < 0):
        raise refusal
    return found


def with_drop_path(resolved: Mapping[str, Any], rate: float) -> dict[str, Any]:
    """The spec with stochastic depth that rises evenly from 0 in the first block to `rate` in the last."""
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise BadSpec(f"drop_path_rate is at least 0 and below 1, got {rate!r}")
    places = dict(_depths("body", resolved["body"], "body", 0))
    count = max(places.values(), default=0) + 1
    rates = {f"{path}.scheme.drop_path": ramp(rate, depth, count) for path, depth in places.items()}
    return spec.override(resolved, rates) if rates else dict(resolved)


def _depths(role: str, node: Mapping[str, Any], path: str, start: int) -> Iterator[tuple[str, int]]:
    """(path, depth) of the blocks of a resolved part whose first ones stand at depth `start`.

    Parts, or rows of blocks, that stand side by side begin at one depth; blocks behind them have the depth of the last
    (CrossViT's rule).
    """
    if role == "block":
        yield path, start
        return
    parallel = getattr(registry.find(role, node["kind"]), "parallel", ())
    end = start
    for name, inner, child in spec.children(role, node):
        beside = name.partition(".")[0] in parallel
        along = int(name.rpartition(".")[2]) if beside and inner == "block" else 0
        first = start + along if beside else max(start, end - 1) if parallel else end
        for block, depth in _depths(inner, child, f"{path}.{name}", first):
            yield block, depth
            end = max(end, depth + 1)


def create_model(
    name_or_spec: str | Path | Mapping[str, Any],
    pretrained: bool | str | Path | Mapping[str, Any] = False,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    override: Mapping[str, Any] | None = None,
    fresh_classifier: bool | None = None,
) -> Model:
    """A model by name (canonical, timm's or the authors'), by spec, or by the folder of a saved one or of a run.

    `pretrained` is a file or folder of published or saved weights, a run's folder, a state dict, or
    `"hf-hub:owner/name"`; formery ships no weights, so `True` says where to get them. A folder of transformers whose
    config formery reads is built by that config. `drop_rate` is the dropout before the last layer, `drop_path_rate` the
    stochastic depth of the last block. `override` replaces nodes of the spec by dotted globs:
    `{"body.stages.2.mixer": "gated_deltanet"}`. With `features_only` the model returns the list of its feature maps, of
    which `out_indices` chooses: numbers of maps, or how many of the last.

    With 0 `num_classes` the checkpoint's classifier is left aside, with `features_only` all of its head, and neither
    has to be there. With another number than the checkpoint's the classifier starts fresh. One without a classifier
    is an error unless `fresh_classifier`, which where it is None means: where `num_classes` is given. UnknownName and
    BadSpec name the fault and the nearest match.
    """
    from .model import Model
    from .published import config_beside, load_published
    from .saving import WEIGHTS, blank, loads_as_model

    if isinstance(name_or_spec, Path):
        name_or_spec = as_path(name_or_spec)
    if not isinstance(name_or_spec, str | Mapping):
        raise BadSpec(f"a model is a name, a spec or a folder, got {type(name_or_spec).__name__}")
    num_classes, in_chans = _whole("num_classes", num_classes), _whole("in_chans", in_chans)
    if override is not None and not all(isinstance(key, str) for key in _mapping(override)):
        raise BadSpec("override maps dotted globs, which are texts, to options or parts")
    given: str | Mapping[str, Any] | None = name_or_spec
    folder = _checkpoint(name_or_spec, pretrained)
    if isinstance(name_or_spec, str) and _is_folder(name_or_spec):
        given, folder = None, saved_in(Path(name_or_spec))
        if pretrained:
            raise BadSpec("the folder brings its own weights; leave pretrained out")
    arguments: dict[str, Any] = {"img_size": img_size, "drop_path_rate": drop_path_rate, "override": override}
    arguments |= {"num_classes": num_classes, "in_chans": in_chans, "global_pool": global_pool, "drop_rate": drop_rate}
    view: dict[str, Any] = {"features_only": features_only, "out_indices": out_indices}
    config = None
    if isinstance(folder, Path) and loads_as_model(folder):
        if not isinstance(given, Mapping):
            return _saved(folder, given, arguments, view)
        folder = folder / WEIGHTS
    if folder is not None:
        config = config_beside(folder, needed=given is None)
    if config is not None and not isinstance(given, Mapping):
        given = _described(given, config, str(folder))
    assert given is not None
    resolved = model_spec(given, **arguments, **view)
    if folder is None:
        return Model(resolved)
    headed = model_spec(given, **arguments)
    scores = headed["head"].get("num_classes") != 0  # without any, the checkpoint's are placed and then dropped
    with blank():  # no values are drawn for what the checkpoint brings
        model = Model(headed if scores else spec.override(headed, {"head.num_classes": 1}))
    load_published(
        model,
        folder,
        own_config=config is not None and not isinstance(name_or_spec, Mapping),
        strict=True,
        aside="head" if features_only else None if scores else "classifier",
        fresh=num_classes is not None if fresh_classifier is None else fresh_classifier,
    )
    return _as_asked(model, resolved, num_classes if scores else 0, in_chans, img_size, features_only)


def as_path(folder: str | Path) -> str:
    """A folder as `create_model` takes it for one: a name without a separator would be a model's."""
    text = str(folder)
    return text if "/" in text or "\\" in text or text in (".", "..") else f"./{text}"


def _whole(name: str, value: Any) -> int | None:
    """A whole number of any library's as Python's."""
    try:
        return None if value is None else index(value)
    except TypeError:
        raise BadSpec(f"{name} is a whole number, got {value!r}") from None


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise BadSpec(f"override maps dotted globs to options or parts, got {type(value).__name__}")
    return value


def _checkpoint(
    name_or_spec: str | Mapping[str, Any], pretrained: bool | str | Path | Mapping[str, Any]
) -> Path | Mapping[str, Any] | None:
    """The file or folder of weights that `pretrained` names, downloaded where it is the hub's, or its state dict."""
    from .saving import WEIGHTS, fetch, loads_as_model

    if pretrained is True:
        known = cards.canonical(name_or_spec) if isinstance(name_or_spec, str) else None
        ids = [alias for alias, name in cards.aliases().items() if name == known and "/" in alias]
        hub = f"pretrained='hf-hub:{ids[0]}' or " if ids else "pretrained="
        raise BadFile(f"formery ships no weights; give {hub}the path of a checkpoint")
    if not pretrained:
        return None
    if isinstance(pretrained, Mapping):
        return pretrained
    source = str(pretrained)
    path = fetch(source) if source.startswith(("hf-hub:", "hf_hub:")) else Path(source)
    if path.is_dir():
        return saved_in(path)
    # beside its config the file of a saved model says more than names and shapes
    return path.parent if path.name == WEIGHTS and path.is_file() and loads_as_model(path.parent) else path


def _saved(folder: Path, given: str | None, arguments: Mapping[str, Any], view: Mapping[str, Any]) -> Model:
    """A model that formery saved: built as it was, in the size, with the channels, classes, pooling, dropout and drop
    path that are asked for."""
    from .model import Model
    from .saving import put

    if arguments["override"]:
        raise BadSpec(
            f"{folder} is built as it was saved, so it takes no override; give the changed spec, with pretrained="
        )
    model = Model.from_pretrained(folder)
    if given is not None and cards.canonical(given) != model.name:
        raise BadWeights(f"{folder} holds a saved {model.name}, not {given}; use create_model({as_path(folder)!r})")
    pool, classes = arguments["global_pool"], arguments["num_classes"]
    changes = dict(arguments) | {"global_pool": None, "num_classes": None}
    if model.plans and (view["features_only"] or any(value is not None for value in changes.values())):
        raise BadSpec(
            f"{folder} is a rewritten model, which stays as it is; only num_classes and global_pool can be changed"
        )
    resolved = model.resolved if model.plans else model_spec(model.resolved, **changes, **view)
    rates = {name: arguments[name] for name in ("drop_rate", "drop_path_rate") if arguments[name] is not None}
    if rates and (dropped := model_spec(model.resolved, **rates)) != model.resolved:
        tensors = {name: t.clone() for name, t in model.state_dict().items()}
        extra = model.extra
        model.rebuild(dropped)
        model.extra = extra
        put(model, tensors, str(folder))
    if not view["features_only"] and (pool is not None or classes not in (None, model.num_classes)):
        model.reset_classifier(model.num_classes if classes is None else classes, pool)
    return _as_asked(model, resolved, None, arguments["in_chans"], arguments["img_size"], view["features_only"])


def _described(name: str | None, config: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The spec of transformers' config beside a checkpoint, under `name` where that is the same model by its shape."""
    described = cards.spec_of_config(config)
    if name is None:
        return described
    canonical = cards.canonical(name)
    if cards.variants()[canonical].name != described["name"]:
        raise BadWeights(f"{folder} holds a {config['model_type']}, not {name}; use create_model({as_path(folder)!r})")
    sizes = [
        (node["stem"]["dim"], spec.count("body", "block", node["body"]))
        for node in (spec.resolve(described), spec.resolve(cards.spec_of(canonical)))
    ]
    if sizes[0] != sizes[1]:
        (width, depth), (wanted, blocks) = sizes
        raise BadWeights(
            f"{folder} has width {width} and {depth} blocks, {name} has {wanted} and {blocks}; "
            f"use create_model({as_path(folder)!r})"
        )
    return described | {"name": canonical}


def _as_asked(
    model: Model,
    resolved: Mapping[str, Any],
    num_classes: int | None,
    in_chans: int | None,
    img_size: int | Sequence[int] | None,
    features_only: bool,
) -> Model:
    """A loaded model with the channels, resolution, classes and head asked for where the checkpoint has others."""
    from .model import Model
    from .published import change_channels, resize

    wanted, got = resolved["stem"], model.resolved["stem"]
    if in_chans is not None and in_chans != got["in_chans"]:
        change_channels(model, in_chans)
    if img_size is not None and wanted["img_size"] != got["img_size"]:
        resize(model, wanted["img_size"])
    if features_only:
        bare = Model(spec.resolve({**model.resolved, "head": resolved["head"]}))
        tensors = model.state_dict()
        bare.load_state_dict({name: tensors[name] for name in bare.state_dict()})
        bare.extra = {name: value for name, value in model.extra.items() if name not in ("classes", "task")}
        return bare
    if num_classes is not None and num_classes != model.num_classes:
        model.reset_classifier(num_classes)
    return model


def _is_folder(name: str) -> bool:
    return ("/" in name or "\\" in name or name in (".", "..")) and Path(name).is_dir()
