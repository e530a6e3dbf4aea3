"""Published checkpoints: read without running code, recognised by their names, adopted, placed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from . import cards, registry, saving
from .checkpoints import read
from .errors import BadSpec, BadWeights, UnknownName
from .files import read_json, saved_in
from .parts.part import Part
from .parts.several import several
from .spec import MODEL, Node, options, override, resolve, short, values_at
from .weights import Dialect, Rule, expected, match, plain, to_ours, to_theirs

if TYPE_CHECKING:
    from .model import Model

OWN = Dialect("formery", tuple(Rule(part, part) for part in ("stem", "body", "head")))
"""formery's own names, in files of `torch.save(model.state_dict(), ...)` and of saved models."""
log = logging.getLogger("formery")


def dialects_of(model: Model) -> list[Dialect]:
    """The dialects of the model's system, for its spec as it is, and formery's own."""
    family = cards.card_of_variant(model.name) or cards.cards().get(model.name)
    found = [] if family is None else list(cards.module_of(family).dialects(model.resolved))
    return [*found, *([] if any(dialect.name == OWN.name for dialect in found) else [OWN])]


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
    aside: Literal["classifier", "head"] | None = None,
    fresh: bool = False,
) -> list[str]:
    """See `Model.load_published`.

    `own_config`: the model's spec was made from the config beside the weights. `strict`: BadWeights where the
    checkpoint has tensors without a use here, for callers who hand out the model alone. What is left `aside` is zeros
    then, whether the checkpoint has it or not, for callers who drop it. `fresh`: where the checkpoint has no
    classifier, that of the model is drawn anew.
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
    scoring = _classifier(target)
    bare = bool(scoring) and not expected(sorted(scoring), dialect) & theirs.keys()
    left = {name for name in kept if name.startswith("head.")} if aside == "head" else scoring
    blanks = {name: shapes.pop(name) for name in sorted(left & shapes.keys()) if aside or (fresh and bare)}
    state, wrong = to_ours(theirs, shapes, dialect)
    state |= {name: torch.zeros(shape) for name, shape in blanks.items()}
    wrong += _twins(target, theirs, state, dialect)
    used = expected(names, dialect)
    unused = [n for n in theirs if n not in used and not any(re.search(p, n) for p in dialect.ignores)]
    if wrong:
        shown = "; ".join(wrong[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
        if bare and not blanks:
            shown += " (there is no classifier: create_model with num_classes starts a fresh one, or none for 0)"
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
    saving.tell_broken(model.name, {name: t for name, t in state.items() if name not in blanks})
    if fresh and bare and not aside:
        classes = model.num_classes
        model.reset_classifier(0)
        model.reset_classifier(classes)
        log.warning("the checkpoint has no classifier: that of %s for %d classes starts fresh", model.name, classes)
    if img_size is not None and wanted != model.resolved["stem"].get("img_size"):
        resize(model, wanted)
    return unused


def _classifier(model: Model) -> set[str]:
    """Names of the tensors that a model without classes lacks."""
    if not model.resolved["head"].get("num_classes"):
        return set()
    without = _hollow(model, override(model.resolved, {"head.num_classes": 0}))
    return set(model.state_dict()) - set(without.state_dict())


def _hollow(model: Model, spec: Mapping[str, Any]) -> Model:
    """The model that another spec makes, without values."""
    with saving.blank():
        return type(model)(spec)


def _check_config(model: Model, source: str | Path | Mapping[str, Any]) -> None:
    """BadWeights where the config beside the weights means another model than this one of the same shapes."""
    config, own = config_beside(source), _own_folder(source)
    if config is not None:
        described = resolve(cards.spec_of_config(config))
    elif own is not None:
        described, source = resolve(saving.read_config(own)["resolved"]), own
    else:
        return
    differing = list(unseen_differences(model.resolved, described))
    if differing:
        path, ours, theirs = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise BadWeights(
            f"{path} is {short(ours)} in {model.name}, {short(theirs)} by the config beside these weights{more}; "
            f"use create_model({_as_argument(source)!r})"
        )


def _own_folder(source: str | Path | Mapping[str, Any]) -> Path | None:
    """The folder of the model that formery saved with these weights."""
    if isinstance(source, Mapping):
        return None
    path = Path(source)
    folder = saved_in(path) if path.is_dir() else path.parent
    return folder if (path.is_dir() or path.name == saving.WEIGHTS) and saving.loads_as_model(folder) else None


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

    def shape(ours: str | None) -> tuple[int, ...] | None:
        found = None if ours is None else match(ours, dialect.rules)
        tensor = theirs.get(found.theirs[0]) if found else None
        if found is None or tensor is None or not tensor.numel() or tensor.dim() < 2:
            return None
        return tuple(plain(tensor, found.rule).shape)

    implied = {} if own_config else dialect.changes
    changes: dict[str, Any] = {path: value for path, value in implied.items() if _applies(model, path)}
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


def _applies(model: Model, path: str) -> bool:
    """Whether a dialect's change is about the model: a head of another kind has nothing to be changed."""
    return not path.startswith("head.") or path.split(".")[1] in model.resolved["head"]


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
    theirs = under_names(model, name)
    implied = _implied(model, next(d for d in dialects_of(model) if d.name == name))
    try:
        described = override(model.resolved, implied)
    except BadSpec:  # a hybrid whose parts have no such options
        return theirs
    differing = list(unseen_differences(model.resolved, described))
    slight = [found for found in differing if found[0].endswith(".eps")]
    for path, ours, other in [found for found in differing if found not in slight][:1]:
        raise BadWeights(
            f"{path} is {short(ours)} in this model, {short(other)} in that of the dialect {name!r}: under its names "
            f"the weights would make another function; create_model(..., override={implied}) makes theirs"
        )
    for path, ours, other in slight[:1]:
        more = f" ({len(slight)} such places)" if len(slight) > 1 else ""
        log.warning("%s is %s in this model, %s in that of the dialect %r%s", path, ours, other, name, more)
    return theirs


def under_names(model: Model, name: str) -> dict[str, Tensor]:
    """The weights in a dialect, whatever the model that it is of computes with them."""
    if model.plans:
        raise BadWeights("a rewritten model has no published names")
    found = {d.name: d for d in dialects_of(model)}
    if name not in found:
        raise BadWeights(f"{model.name} has no dialect {name!r}; there are: {', '.join(found)}")
    return to_theirs(model.state_dict(), found[name])


def _implied(model: Model, dialect: Dialect) -> dict[str, Any]:
    """Overrides that make the model's spec that of a dialect: the dialect's own, and the published values of what the
    model has from another dialect."""
    changes = {path: value for path, value in dialect.changes.items() if _applies(model, path)}
    if dialect is OWN or not (cards.card_of_variant(model.name)):
        return changes
    published = resolve(cards.spec_of(model.name))
    for other in dialects_of(model):
        for path, value in other.changes.items():
            if path in changes or not _applies(model, path):
                continue
            try:
                adopted_here = override(model.resolved, {path: value}) == model.resolved
            except BadSpec:
                continue
            if adopted_here and (values := values_at(published, path)) and all(v == values[0] for v in values):
                changes[path] = values[0]
    return changes
