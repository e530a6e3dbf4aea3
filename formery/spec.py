"""Specs: plain data that a model is built from.

A spec is a name, or a mapping with the name as `kind` and options. A part's options are the keyword-only arguments of
its `__init__`: the signature is the schema. An option whose value is itself a spec is annotated with the role of the
part it names (`norm: NormSpec | None = "layer"`). Options named in `FILLED` say where a part stands; the body fills
them in.

A part may offer a `shorthand`: a class method whose signature is a shorter schema and which returns the options of the
full one (a pyramid's `dims` and `depths` instead of every block). `resolve` writes every option of every part out; the
paths of the resolved spec are the paths of the modules.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from . import registry
from .errors import BadSpec, UnknownName

VERSION = 1
FILLED = ("grid", "index", "depth", "place")
"""Options that say where a part stands: the nominal grid of its tokens, the number of its block, the number of blocks,
or all of this as one `Place`, for parts that build others."""
DEFAULT_KINDS = {"block": "block"}

Spec = str | Mapping[str, Any]
Node = dict[str, Any]
StemSpec = Annotated[Spec, "stem"]
MixerSpec = Annotated[Spec, "mixer"]
ChannelSpec = Annotated[Spec, "channel"]
SublayerSpec = Annotated[Spec, "sublayer"]
NormSpec = Annotated[Spec, "norm"]
PositionSpec = Annotated[Spec, "position"]
MergeSpec = Annotated[Spec, "merge"]
SchemeSpec = Annotated[Spec, "scheme"]
BlockSpec = Annotated[Spec, "block"]
BodySpec = Annotated[Spec, "body"]

MODEL = {"stem": "stem", "body": "body", "head": "head"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part stands in its model."""

    path: str = "spec"
    grid: tuple[Any, ...] = ()
    """Of tokens that are several tensors, the grid of each."""
    index: int = 0
    depth: int = 1
    prefix: int = 0
    """Prefix tokens that come in, in front of the grid's."""

    def at(self, name: str | int, **changes: Any) -> Place:
        """The place of the child `name`."""
        return replace(self, path=f"{self.path}.{name}", **changes)


# ------------------------------------------------------------------------------------------------ schemas


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword-only argument of a part."""

    hint: Any
    default: Any
    role: str | None
    """The role of the parts it holds specs for, if it does."""

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def _role_of(hint: Any) -> str | None:
    roles = registry.HOMES.keys() | registry.UNIONS.keys()
    for argument in get_args(hint):
        if isinstance(argument, str) and argument in roles and get_origin(hint) is Annotated:
            return argument
        if found := _role_of(argument):
            return found
    return None


@cache
def options(function: Callable[..., Any]) -> dict[str, Option]:
    """The schema of a part's `__init__` or `shorthand`: its keyword-only arguments in order.

    What the body fills in is no option of a part; in a shorthand, which is never filled in, the same name may be one (a
    stack's `depth`).
    """
    plain = getattr(function, "__func__", function)
    filled = FILLED if plain.__name__ == "__init__" else ()
    hints = get_type_hints(plain, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: Option(hints.get(p.name, Any), p.default, _role_of(hints.get(p.name)))
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.name not in filled
    }


@cache
def _filled(part: type) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(part).parameters if name in FILLED)


@cache
def _adapter(function: Callable[..., Any], option: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(options(function)[option].hint, config=ConfigDict(allow_inf_nan=False))


def parse(role: str, spec: Any, where: str = "spec") -> tuple[str, Node]:
    """The name and the options of `spec`; BadSpec unless it is a name or a mapping that says its `kind`."""
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping):
        raise BadSpec(f"{where}: a {role} is a name, or a mapping with a name as 'kind', got {spec!r}")
    kind = spec.get("kind", DEFAULT_KINDS.get(role))
    if not isinstance(kind, str):
        names = registry.nearest("", registry.index(role))
        raise BadSpec(f"{where}.kind: a {role} needs the name of its kind, got {kind!r}; {names}")
    return kind, {str(option): value for option, value in spec.items() if option != "kind"}


# ------------------------------------------------------------------------------------------------ resolving


def resolve(spec: Mapping[str, Any]) -> Node:
    """The canonical form of a model's spec: every option of every part written out. Resolving again changes nothing.

    BadSpec or UnknownName names the dotted place, the value, what is possible, and the nearest match.
    """
    if not isinstance(spec, Mapping):
        raise BadSpec(f"a model's spec is a mapping with stem, body and head, got {spec!r}")
    version = spec.get("version", VERSION)
    if version != VERSION:
        raise BadSpec(f"version: this formery reads specs of version {VERSION}, got {version!r}")
    known = {"version", "name", *MODEL}
    for key in spec:
        if key not in known:
            raise BadSpec(f"{key}: a model's spec has no such entry; {registry.nearest(str(key), known)}")
    missing = [key for key in MODEL if key not in spec]
    if missing:
        raise BadSpec(f"a model's spec needs stem, body and head; {' and '.join(missing)} missing")
    name = spec.get("name")
    if name is not None and not isinstance(name, str):
        raise BadSpec(f"name: a model's name is a text, got {name!r}")
    head: Node = {"version": VERSION} | ({"name": name} if name else {})
    parts = {key: resolve_part(role, spec[key], key) for key, role in MODEL.items()}
    for option, value in parts["head"].items():  # a head may leave open what the stem says already
        if value is None and parts["stem"].get(option) is not None and option not in ("kind", "norm"):
            parts["head"][option] = parts["stem"][option]
    return head | parts


def resolve_part(role: str, spec: Any, where: str = "spec") -> Node:
    """The canonical form of one part's spec."""
    name, given = parse(role, spec, where)
    try:
        part = registry.find(role, name)
    except UnknownName as error:
        raise BadSpec(f"{where}: {error}") from None
    full = part.__init__
    if hasattr(part, "shorthand") and not part.is_full(given):
        _check_names(role, name, part.shorthand, given, where)
        values = _values(part.shorthand, given, where, resolve_nested=False)
        try:
            given = part.shorthand(**values)
        except BadSpec as error:
            raise located(error, where) from None
    _check_names(role, name, full, given, where)
    return {"kind": name} | _values(full, given, where, resolve_nested=True)


def _check_names(role: str, name: str, function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    schema = options(function)
    for option in given:
        if option in FILLED and option not in schema:
            raise BadSpec(f"{where}.{option}: filled in by the body, never written in a spec; take it out")
        if option not in schema:
            hint = registry.nearest(option, schema) if schema else "it takes none"
            raise BadSpec(f"{where}.{option}: {role} {name!r} has no such option; {hint}")
    missing = [option for option, entry in schema.items() if entry.required and option not in given]
    if missing:
        raise BadSpec(f"{where}: {role} {name!r} needs {', '.join(missing)}")


def _values(function: Callable[..., Any], given: Mapping[str, Any], where: str, *, resolve_nested: bool) -> Node:
    values: Node = {}
    for option, entry in options(function).items():
        value = given.get(option, entry.default)
        if entry.role:
            here = f"{where}.{option}"
            if value is not None and _holds(entry.hint, dict) and not isinstance(value, Mapping):
                raise BadSpec(f"{here}: a mapping of names to {entry.role} specs is needed here, got {value!r}")
            values[option] = _nested(entry, value, here) if resolve_nested else copy.deepcopy(value)
        else:
            values[option] = _checked(function, option, value, f"{where}.{option}")
    return values


def _nested(entry: Option, value: Any, where: str) -> Any:
    assert entry.role
    if value is None:
        if type(None) not in get_args(entry.hint):
            raise BadSpec(f"{where}: a {entry.role} is needed here, got null")
        return None
    if _holds(entry.hint, list):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise BadSpec(f"{where}: a list of {entry.role} specs is needed here, got {value!r}")
        return [resolve_part(entry.role, item, f"{where}.{i}") for i, item in enumerate(value)]
    return resolve_part(entry.role, value, where)


def _holds(hint: Any, container: type) -> bool:
    return get_origin(hint) is container or any(get_origin(argument) is container for argument in get_args(hint))


def _checked(function: Callable[..., Any], option: str, value: Any, where: str) -> Any:
    from pydantic import ValidationError

    if isinstance(value, tuple):
        value = list(value)
    try:
        return _adapter(function, option).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"] if isinstance(part, int))])
        raise BadSpec(f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}, got {value!r}") from None


def checked(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> Node:
    """Options `given` to a function that is no part, each as its hint says; BadSpec names the place of one that is not,
    or that the function does not have."""
    known = options(function)
    for name in given:
        if name not in known:
            raise BadSpec(f"{where} takes no option {name!r}; {registry.nearest(name, known)}")
    return {name: _checked(function, name, value, f"{where}.{name}") for name, value in given.items()}


def located(error: BadSpec, where: str) -> BadSpec:
    """The error with its dotted place in front, once."""
    if getattr(error, "located", False):
        return error
    new = BadSpec(f"{where}: {error}")
    new.located = True  # type: ignore[attr-defined]
    return new


# ------------------------------------------------------------------------------------------------ building


def build(role: str, spec: Any, *args: Any, place: Place | None = None) -> Any:
    """The part that `spec` describes, built with `args` (most parts take their width) and told its `place`."""
    place = place or Place()
    node = resolve_part(role, spec, place.path)
    part = registry.find(role, node["kind"])
    given = {option: value for option, value in node.items() if option != "kind"}
    given |= {name: place if name == "place" else getattr(place, name) for name in _filled(part)}
    try:
        return part(*args, **given)
    except BadSpec as error:
        raise located(error, place.path) from None


# ------------------------------------------------------------------------------------------------ walking


def children(role: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str, Node]]:
    """(relative path, role, node) of the parts directly inside a resolved node."""
    part = registry.find(role, node["kind"])
    for option, entry in options(part.__init__).items():
        value = node.get(option)
        if not entry.role or value is None:
            continue
        items: list[tuple[str, Node]]
        items = [(option, value)] if isinstance(value, dict) else [(f"{option}.{i}", v) for i, v in enumerate(value)]
        for path, item in items:
            yield path, registry.role_of(entry.role, item["kind"]), item


def walk(resolved: Mapping[str, Any]) -> Iterator[tuple[str, str, Node]]:
    """(dotted path, role, node) of every part of a resolved model, in the order of the modules."""

    def below(path: str, role: str, node: Node) -> Iterator[tuple[str, str, Node]]:
        yield path, role, node
        for name, inner, child in children(role, node):
            yield from below(f"{path}.{name}", inner, child)

    for key, role in MODEL.items():
        yield from below(key, role, resolved[key])


def count(role: str, inner: str, node: Mapping[str, Any]) -> int:
    """How many parts of role `inner` a resolved node of `role` holds, itself included."""
    return (role == inner) + sum(count(child_role, inner, child) for _, child_role, child in children(role, node))


# ------------------------------------------------------------------------------------------------ overriding


def override(resolved: Mapping[str, Any], changes: Mapping[str, Any]) -> Node:
    """The resolved spec with nodes replaced: dotted globs to new values.

    `body.stages.2.blocks.*.mixer` is every mixer of a stage; `**` stands for any number of steps; `body.stages.2.mixer`
    replaces that stage's layout. BadSpec where a glob hits nothing, or where two globs hit one node or one inside it.
    """
    resolved = resolve(resolved)
    writes: dict[tuple[str, ...], tuple[str, Any]] = {}
    for glob, value in changes.items():
        hits = _hits(resolved, glob.split("."), value, None)
        if not hits:
            raise BadSpec(f"override {glob!r} hits nothing; {_suggest(resolved, glob)}")
        for path, concrete in hits:
            for other, (other_glob, _) in writes.items():
                shared = min(len(path), len(other))
                if other_glob != glob and path[:shared] == other[:shared]:
                    raise BadSpec(f"overrides {other_glob!r} and {glob!r} both hit {'.'.join(path[:shared])}; keep one")
            writes[path] = (glob, concrete)
    changed = copy.deepcopy(resolved)
    for path, (_, value) in writes.items():
        target: Any = changed
        for step in path[:-1]:
            target = target[int(step)] if isinstance(target, list) else target[step]
        last = path[-1]
        target[int(last) if isinstance(target, list) else last] = copy.deepcopy(value)
    return resolve(changed)


def values_at(resolved: Mapping[str, Any], glob: str) -> list[Any]:
    """What stands at a dotted glob in a resolved spec, one value a place."""
    found = []
    for path, _ in _hits(resolved, glob.split("."), None, None):
        node: Any = resolved
        for step in path:
            node = node[int(step)] if isinstance(node, list) else node[step]
        found.append(node)
    return found


def _hits(node: Any, steps: list[str], value: Any, role: str | None) -> list[tuple[tuple[str, ...], Any]]:
    """Concrete paths below `node` that the glob's `steps` reach, each with the value to write there."""
    step, rest = steps[0], steps[1:]
    if step == "**":
        here = _hits(node, rest, value, role) if rest else []
        return here + [
            ((key, *path), concrete)
            for key, child, child_role in _entries(node, role)
            for path, concrete in _hits(child, steps, value, child_role)
        ]
    found: list[tuple[tuple[str, ...], Any]] = []
    entries = list(_entries(node, role))
    for key, child, child_role in entries:
        if not fnmatchcase(key, step):
            continue
        if rest:
            found += [((key, *path), concrete) for path, concrete in _hits(child, rest, value, child_role)]
        elif key != "kind":
            found.append(((key,), value))
    if not found and role in registry.HOMES and isinstance(node, Mapping):
        part = registry.find(role, node["kind"])
        if hasattr(part, "spread"):
            found += _spread(part, node, step, rest, value, role)
    return found


def _spread(
    part: Any, node: Any, step: str, rest: list[str], value: Any, role: str
) -> list[tuple[tuple[str, ...], Any]]:
    """What a name that a part spreads over others (`body.mixer`) reaches: them, or what `rest` names in them."""
    if not rest:
        return [(tuple(relative.split(".")), concrete) for relative, concrete in part.spread(node, step, value).items()]
    found: list[tuple[tuple[str, ...], Any]] = []
    for relative in part.spread(node, step, None):
        found += _hits(node, [*relative.split("."), *rest], value, role)
    return found


def _entries(node: Any, role: str | None) -> Iterator[tuple[str, Any, str | None]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if role is None:
                yield key, value, MODEL.get(key)
            else:
                schema = options(registry.find(role, node["kind"]).__init__)
                yield key, value, schema[key].role if key in schema else None
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield str(index), item, role


def _suggest(resolved: Mapping[str, Any], glob: str) -> str:
    """The longest part of the glob that reaches something, and what could follow."""
    steps = glob.split(".")
    for length in range(len(steps) - 1, 0, -1):
        if hits := _hits(resolved, steps[:length], None, None):
            node: Any = resolved
            try:
                for step in hits[0][0]:
                    node = node[int(step)] if isinstance(node, list) else node[step]
            except (KeyError, IndexError, TypeError):
                continue
            reached = ".".join(steps[:length])
            if isinstance(node, Mapping):
                known = [key for key in node if key != "kind"] + _spread_words(resolved, ".".join(hits[0][0]))
                return f"at {reached}: {registry.nearest(steps[length], known)}"
            if isinstance(node, list):
                return f"{reached} has entries 0 to {len(node) - 1}"
            return f"{reached} has nothing inside it"
    return registry.nearest(steps[0], MODEL)


SPREAD = ("mixer", "channel", "scheme", "norm", "scale", "drop_path")
"""What a body sets in all its blocks at once, and a block in its scheme."""


def _spread_words(resolved: Mapping[str, Any], at: str) -> list[str]:
    """The names that the part at a dotted path spreads over others."""
    for path, role, node in walk(resolved):
        part = registry.find(role, node["kind"])
        if path == at and hasattr(part, "spread"):
            return [word for word in SPREAD if word not in node and part.spread(node, word, None)]
    return []


def from_pairs(pairs: Sequence[str]) -> Node:
    """Overrides as the command line writes them: `["head.num_classes=7", "body.mixer=attention"]`, values in YAML."""
    from .formats import from_yaml

    changes: Node = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals or not path.strip():
            raise BadSpec(f"an override is written PATH=VALUE, got {pair!r}")
        if (path := path.strip()) in changes:
            raise BadSpec(f"override {path!r} is given twice; keep one")
        try:
            changes[path] = from_yaml(text)
        except BadSpec as error:
            raise BadSpec(f"{path}: {error}") from None
    return changes


def short(value: Any, most: int = 60) -> str:
    """A spec in one line, for messages and tables."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."
