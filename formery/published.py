"""Published checkpoints: read without running code, recognised by their names, adopted, placed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import cards, registry, saving
from .errors import BadFile, BadWeights, UnknownName
from .files import read_json
from .parts.norms.batch import COUNTER
from .parts.part import Part
from .parts.several import several
from .spec import MODEL, Node, options, override, resolve, short
from .weights import Dialect, expected, match, plain, to_ours, to_theirs

if TYPE_CHECKING:
    from .model import Model

WRAPPERS = ("model", "state_dict", "model_state_dict", "module", "params", "state_dict_ema")
"""Keys under which published files keep the state dict."""


def read(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a state dict, a .safetensors or .pth/.pt/.bin file, or a folder with one (shards included)."""
    if isinstance(source, Mapping):
        found: Mapping[str, Any] = source
    else:
        path = Path(source)
        found = _folder(path) if path.is_dir() else _file(path)
    for key in WRAPPERS:
        if isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    tensors = {name: value for name, value in tensors.items() if name.rpartition(".")[2] != COUNTER}
    if not tensors:
        raise BadWeights("the checkpoint holds no tensors; give a state dict, or a file or folder with one")
    if all(name.startswith("module.") for name in tensors):  # saved from DataParallel
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _file(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return saving.read_tensors(path)
    if not path.is_file():
        raise BadFile(f"{path} does not exist")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadFile(
            f"{path} cannot be read as tensors alone ({type(error).__name__}): it is damaged, or holds code as well; "
            "convert it to safetensors"
        ) from None
    if not isinstance(loaded, Mapping):
        raise BadFile(f"{path} holds {type(loaded).__name__}, not a state dict")
    return dict(loaded)


def _folder(folder: Path) -> dict[str, Any]:
    """The shards that an index lists, else `model.safetensors`, else the one file of weights there is."""
    for index in sorted([*folder.glob("*.safetensors.index.json"), *folder.glob("*.bin.index.json")]):
        content = read_json(index)
        named = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
            raise BadFile(f"{index} lists no shards: its weight_map names the file of each tensor; it is damaged")
        shards = sorted(set(named.values()))
        if any(Path(shard).name != shard for shard in shards):
            raise BadFile(f"{index} names files outside its folder")
        return {name: t for shard in shards for name, t in _file(folder / shard).items()}
    if (folder / saving.WEIGHTS).is_file():
        return _file(folder / saving.WEIGHTS)
    files = sorted(path for kind in ("safetensors", "bin", "pth", "pt") for path in folder.glob(f"*.{kind}"))
    if len(files) != 1:
        found = "no weights" if not files else f"{len(files)} files of weights"
        raise BadFile(f"{folder} holds {found}; name one file")
    return _file(files[0])


def dialects_of(model: Model) -> list[Dialect]:
    """The dialects of the model's system, for its spec as it is."""
    family = cards.card_of_variant(model.name) or cards.cards().get(model.name)
    if family is None:
        raise BadWeights(f"{model.name!r} is no published variant, so no names are known for it; use from_pretrained")
    return list(cards.module_of(family).dialects(model.resolved))


def config_beside(source: str | Path | Mapping[str, Any], *, needed: bool = False) -> dict[str, Any] | None:
    """The config of transformers in a folder of weights, where a system here reads it.

    Where one is `needed`, BadFile or UnknownName says why there is none.
    """
    if isinstance(source, Mapping) or not Path(source).is_dir():
        return None
    path = Path(source) / saving.CONFIG
    if not path.is_file() and not needed:
        return None
    config = read_json(path)
    if needed and not (isinstance(config, dict) and "model_type" in config):
        saving.read_config(Path(source))
    try:
        cards.of_config(config)
    except UnknownName:
        if needed:
            raise
        return None
    return dict(config)


def load_published(
    model: Model,
    source: str | Path | Mapping[str, Any],
    *,
    img_size: int | list[int] | None = None,
    own_config: bool = False,
    strict: bool = False,
) -> list[str]:
    """See `Model.load_published`.

    `own_config`: the model's spec was made from the config beside the weights. `strict`: BadWeights where the
    checkpoint has tensors without a use here, for callers who hand out the model alone.
    """
    if model.plans:
        raise BadWeights("published weights fit the model as published; load them before rewriting it")
    theirs = read(source)
    dialect = recognise(model, theirs)
    _check_doubts(model, theirs, source)
    changes = adopted(model, theirs, dialect, own_config=own_config)
    wanted = img_size if img_size is not None else model.resolved["stem"].get("img_size")
    new = override(model.resolved, changes) if changes else model.resolved
    target = model if new == model.resolved else _hollow(model, new)  # looked at before the model is touched
    dialect = next(d for d in dialects_of(target) if d.name == dialect.name)
    if not own_config:
        _check_config(target, source)
    like, kept = next(model.parameters()), saving.tensors_of_names(target)
    names = list(target.state_dict())
    shapes = {name: tensor.shape for name, tensor in target.state_dict().items() if name in kept}
    state, wrong = to_ours(theirs, shapes, dialect)
    wrong += _twins(target, theirs, state, dialect)
    used = expected(names, dialect)
    unused = [n for n in theirs if n not in used and not any(re.search(p, n) for p in dialect.ignores)]
    if wrong:
        shown = "; ".join(wrong[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        raise BadWeights(f"these {dialect.name} weights do not fit {model.name}: {shown}")
    if strict and unused:
        shown = ", ".join(unused[:6]) + (f" and {len(unused) - 6} more" if len(unused) > 6 else "")
        raise BadWeights(
            f"{model.name} has no use for {shown} of these {dialect.name} weights, so it is not their model; "
            "model.load_published leaves them out and returns their names"
        )
    if img_size is not None and wanted != target.resolved["stem"].get("img_size"):
        check_resizable(target)
        _hollow(target, override(target.resolved, {"stem.img_size": wanted}))
    if target is not model:
        if target.num_classes != model.num_classes:
            model.extra = {key: value for key, value in model.extra.items() if key != "classes"}
        model.rebuild(new)
    device = None if like.is_meta else like.device  # a model without values takes over the checkpoint's memory
    saving.put(model, {name: t.to(device=device, dtype=like.dtype) for name, t in state.items()}, "the checkpoint")
    if img_size is not None and wanted != model.resolved["stem"].get("img_size"):
        resize(model, wanted)
    return unused


def _hollow(model: Model, spec: Mapping[str, Any]) -> Model:
    """The model that another spec makes, without values."""
    with saving.blank():
        return type(model)(spec)


def _check_config(model: Model, source: str | Path | Mapping[str, Any]) -> None:
    """BadWeights where the config beside the weights means another model than this one of the same shapes."""
    config = config_beside(source)
    if config is None:
        return
    described = resolve(cards.spec_of_config(config))
    differing = list(unseen_differences(model.resolved, described))
    if differing:
        path, ours, theirs = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise BadWeights(
            f"{path} is {short(ours)} in {model.name}, {short(theirs)} by the config beside these weights{more}; "
            f"use create_model({_as_argument(source)!r})"
        )


def _check_doubts(model: Model, theirs: Mapping[str, Tensor], source: str | Path | Mapping[str, Any]) -> None:
    """BadWeights where the system knows from a file's name or tensors that the weights are another model's, or cannot
    know whose they are (a system's `doubt`: options that shapes do not show)."""
    family = cards.card_of_variant(model.name) or cards.cards().get(model.name)
    doubt = None if family is None else getattr(cards.module_of(family), "doubt", None)
    name = "" if isinstance(source, Mapping) else Path(source).name
    if doubt is not None and (why := doubt(model.resolved, theirs, name)):
        raise BadWeights(why)


def _as_argument(source: Any) -> str:
    from .create import as_path

    return as_path(source)


def unseen_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(path, ours, theirs) of the options in which two resolved specs differ though tensors cannot show it, as the
    parts say (`Part.unseen`), and of the kinds of parts; the outermost of each place."""
    for name, role in sorted(MODEL.items()):
        yield from _unseen_below(name, role, ours[name], theirs[name])


def _unseen_below(path: str, role: str, ours: Node, theirs: Node) -> Iterator[tuple[str, Any, Any]]:
    if ours["kind"] != theirs["kind"]:
        yield f"{path}.kind", ours["kind"], theirs["kind"]
        return
    part = registry.find(role, ours["kind"])
    for option, entry in sorted(options(part.__init__).items()):
        here, mine, their = f"{path}.{option}", ours[option], theirs[option]
        if entry.role and (pairs := _pairs(here, mine, their)) is not None:
            for inner, one, other in pairs:
                yield from _unseen_below(inner, entry.role, one, other)
        elif mine != their and option in part.unseen:
            yield here, mine, their


def _pairs(path: str, ours: Any, theirs: Any) -> list[tuple[str, Node, Node]] | None:
    """(path, ours, theirs) of the specs in two values of one option; None where one has what the other lacks."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [(path, ours, theirs)]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [(f"{path}.{i}", one, other) for i, (one, other) in enumerate(zip(ours, theirs, strict=True))]
    return None


def _twins(model: Model, theirs: Mapping[str, Tensor], state: Mapping[str, Tensor], dialect: Dialect) -> list[str]:
    """What is wrong with second names of shared tensors: a file may repeat the tensor, not give another one."""
    wrong: list[str] = []
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        original = first.setdefault(id(parameter), name)
        found = match(name, dialect.rules) if original != name and original in state else None
        if found and all(n in theirs for n in found.theirs):
            again, differs = to_ours(theirs, {name: parameter.shape}, dialect)
            if differs or not torch.equal(again[name], state[original]):
                wrong.append(f"{found.theirs[0]} differs from {original}, which it is tied to")
    return wrong


def recognise(model: Model, theirs: Mapping[str, Tensor]) -> Dialect:
    """The dialect most of whose names the checkpoint has; BadWeights where it speaks none of them."""
    best, score = None, 0.0
    names = list(saving.tensors_of_names(model))
    dialects = dialects_of(model)
    for dialect in dialects:
        wanted = expected(names, dialect)
        share = len(wanted & theirs.keys()) / max(1, len(wanted))
        if share > score:
            best, score = dialect, share
    if best is None or score < 0.5:
        known = ", ".join(d.name for d in dialects)
        sample = ", ".join(list(theirs)[:3])
        raise BadWeights(f"these names are not those of {model.name} ({known}): {sample}, ...")
    return best


def adopted(
    model: Model, theirs: Mapping[str, Tensor], dialect: Dialect, *, own_config: bool = False
) -> dict[str, Any]:
    """Overrides that make the spec fit dialect and checkpoint: its own changes, classes, channels, resolution."""
    stem, head = model.resolved["stem"], model.resolved["head"]

    def applies(path: str) -> bool:  # a head of another kind has nothing to be changed
        return not path.startswith("head.") or path.split(".")[1] in head

    def shape(ours: str | None) -> tuple[int, ...] | None:
        found = None if ours is None else match(ours, dialect.rules)
        tensor = theirs.get(found.theirs[0]) if found else None
        if found is None or tensor is None or not tensor.numel() or tensor.dim() < 2:
            return None
        return tuple(plain(tensor, found.rule).shape)

    implied = {} if own_config else dialect.changes
    changes: dict[str, Any] = {path: value for path, value in implied.items() if applies(path)}
    scorer = next((f"head.{name}.weight" for name in model.head.layers), None)
    if "num_classes" in head and (found := shape(scorer)) and found[0] != head["num_classes"]:
        changes["head.num_classes"] = found[0]
    first = next((f"stem.{name}.weight" for name in several(model.stem.first) if name), None)
    if "in_chans" in stem and (found := shape(first)) and found[1] != stem["in_chans"]:
        changes["stem.in_chans"] = found[1]
    table = None if model.stem.table is None else f"stem.{model.stem.table}.weight"
    if "vocab" in stem and (found := shape(table)) and found[0] != stem["vocab"]:
        changes |= {"stem.vocab": found[0], "head.vocab": found[0]}
    side = _side(model, theirs, dialect)
    if side and side != stem.get("img_size"):
        changes["stem.img_size"] = side
    return changes


def _side(model: Model, theirs: Mapping[str, Tensor], dialect: Dialect) -> int | None:
    """The square image size whose grid the checkpoint's bound tensors fit, where they do not fit the model's."""
    stem = model.resolved["stem"]
    if "img_size" not in stem:
        return None
    size = stem["img_size"]
    side = size if isinstance(size, int) else size[0]
    for path, name, part in _bound(model):
        full, grid = f"{path}.{name}", tuple(part.grid)
        found = match(full, dialect.rules)
        if found is None or any(n not in theirs for n in found.theirs):
            continue
        if not theirs[found.theirs[0]].numel() or not theirs[found.theirs[0]].dim():
            continue
        shape = tuple(plain(theirs[found.theirs[0]], found.rule).shape)
        extra = sum(model.state_dict()[n].shape[0] for n in found.ours if n != full and n in model.state_dict())
        total = part.bound_tokens(name, shape) - extra
        if total != prod(grid) and len(grid) == 2 and round(total**0.5) ** 2 == total:
            return round(total**0.5) * max(1, side // max(1, grid[0]))
    return None


def _bound(model: Model) -> Iterator[tuple[str, str, Any]]:
    """(path, name, part) of every tensor that is bound to a grid of the image; windows have grids of their own."""
    groups = tuple(f"{path}." for path, mixer in model.mixers() if mixer.grouped)
    for path, module in model.named_modules():
        if isinstance(module, Part) and not f"{path}.".startswith(groups):
            yield from ((path, name, module) for name in module.resizes)


@torch.no_grad()
def change_channels(model: Model, in_chans: int) -> None:
    """Make an image model one for `in_chans` channels: the first convolution's are summed for one, repeated for more.

    Repeated kernels are scaled so that an image with equal channels gives what it gave before.
    """
    if model.stem.first is None:
        kind = model.resolved["stem"]["kind"]
        raise BadWeights(f"in_chans: stem {kind!r} has no convolution whose channels could be changed; leave it out")
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    extra = model.extra
    model.rebuild(override(model.resolved, {"stem.in_chans": in_chans}))
    model.extra = extra
    for name in several(model.stem.first):
        kernel = old[f"stem.{name}.weight"]
        repeats = -(-in_chans // kernel.shape[1])
        changed = torch.cat([kernel] * repeats, dim=1)[:, :in_chans] * (kernel.shape[1] / in_chans)
        old[f"stem.{name}.weight"] = kernel.sum(1, keepdim=True) if in_chans == 1 else changed
    saving.put(model, old, "the model of other channels")


@torch.no_grad()
def resize(model: Model, img_size: int | list[int]) -> None:
    """Make an image model one of another resolution: what is bound to a grid is resized by its declared rule."""
    if model.plans:
        raise BadWeights("a rewritten model keeps its resolution; resize it, then rewrite it")
    check_resizable(model)
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grids = {
        f"{path}.{name}": (tuple(module.grid), rule)
        for path, module in model.named_modules()
        for name, rule in getattr(module, "resizes", {}).items()
    }
    extra = model.extra
    model.rebuild(override(model.resolved, {"stem.img_size": img_size}))
    model.extra = extra
    for path, module in model.named_modules():
        for name in getattr(module, "resizes", {}):
            full = f"{path}.{name}"
            before, rule = grids[full]
            old[full] = rule(old[full], before, tuple(module.grid))
    saving.put(model, old, "the resized model")


def check_resizable(model: Model) -> None:
    """BadWeights where a part is bound to its resolution without a rule for another one."""
    for path, module in model.named_modules():
        if isinstance(module, Part) and not module.resizable:
            kind = registry.name_of("mixer", type(module)) or type(module).__name__
            raise BadWeights(
                f"{path}: {kind!r} has no rule for another resolution; build the model with that img_size and train it"
            )


def to_published(model: Model, name: str) -> dict[str, Tensor]:
    """See `Model.to_published`."""
    if model.plans:
        raise BadWeights("a rewritten model has no published names")
    found = {d.name: d for d in dialects_of(model)}
    if name not in found:
        raise BadWeights(f"{model.name} has no dialect {name!r}; there are: {', '.join(found)}")
    return to_theirs(model.state_dict(), found[name])
