"""Specs as JSON and YAML, both ways and exact.

PyYAML follows YAML 1.1, which reads `1e-5` as text and `no` as false. Here scalars are read as YAML 1.2 means them, and
whatever either version could misread is quoted or written so that both read it alike.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

from .errors import BadSpec

LARGEST = 4_000_000
"""Characters of the longest text that is read: a spec, a recipe, a search space are all far below."""
DEEPEST = 100
"""Lists and mappings inside one another, at most."""


def to_json(spec: Any) -> str:
    """Indented JSON; BadSpec where a value is not plain data (numbers are finite, keys are texts)."""
    check_keys(spec)
    try:
        return json.dumps(spec, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadSpec(f"a spec is plain data: {error}") from None


def check_keys(spec: Any) -> None:
    """BadSpec where a mapping has a key that is no text: JSON would make it one, unseen."""
    if isinstance(spec, dict):
        for key, value in spec.items():
            if not isinstance(key, str):
                raise BadSpec(f"a mapping's keys are texts, got {key!r}; put it in quotes")
            check_keys(value)
    elif isinstance(spec, list | tuple):
        for item in spec:
            check_keys(item)


def from_json(text: str) -> Any:
    """Plain data from JSON; BadSpec names the line."""
    _check_length(text)
    try:
        return json.loads(text, object_pairs_hook=_no_twins, parse_constant=finite, parse_float=finite)
    except json.JSONDecodeError as error:
        raise BadSpec(f"not JSON, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadSpec(f"not JSON that a spec could be: {error}") from None


def to_yaml(spec: Any) -> str:
    """YAML that `from_yaml`, and any other reader of YAML 1.1 or 1.2, reads back to the same data."""
    import yaml

    to_json(spec)
    return str(yaml.dump(spec, Dumper=_dialect()[1], sort_keys=False, allow_unicode=True, width=120))


def from_yaml(text: str) -> Any:
    """Plain data from YAML (1.2's scalars); BadSpec names the line.

    Runs nothing: tags of objects are refused. So are anchors and aliases, by which a few lines can stand for billions
    of values, texts longer than `LARGEST` and nesting deeper than `DEEPEST`.
    """
    import yaml

    _check_length(text)
    try:
        spec = yaml.load(text, Loader=_dialect()[0])
        to_json(spec)
        return spec
    except (ValueError, RecursionError) as error:
        raise BadSpec(f"not YAML that a spec could be: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BadSpec(f"not YAML{where}: {what}") from None


def _check_length(text: str) -> None:
    if len(text) > LARGEST:
        raise BadSpec(f"a spec has at most {LARGEST} characters, this text has {len(text)}; is it another file?")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twins = sorted({key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1})
        raise BadSpec(f"{', '.join(twins)} is written twice; keep one")
    return result


def finite(text: str) -> float:
    """The number that `text` writes; BadSpec where it is none, or too large for one."""
    number = float(text)
    if not math.isfinite(number):
        raise BadSpec(f"numbers are finite, got {text}")
    return number


@cache
def _dialect() -> tuple[Any, Any]:
    import yaml

    number = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")

    class Loader(yaml.SafeLoader):
        """SafeLoader whose plain scalars mean what YAML 1.2's core schema says; a tree without aliases."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            line = event.start_mark.line + 1
            if getattr(event, "anchor", None) is not None:
                sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
                raise BadSpec(f"line {line}: {sign}{event.anchor}: anchors and aliases are not read; write it out")
            if self.depth > DEEPEST:
                raise BadSpec(f"line {line}: nested deeper than {DEEPEST} levels; no spec is")
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    class Dumper(yaml.SafeDumper):
        """SafeDumper that quotes whatever YAML 1.1 or 1.2 would take for something other than text."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    Loader.yaml_implicit_resolvers = {}
    integer, floating = re.compile(r"^[-+]?\d+$"), number
    for cls in (Loader, Dumper):
        add = cls.add_implicit_resolver
        add("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
        add("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
        add("tag:yaml.org,2002:int", integer, list("-+0123456789"))
        add("tag:yaml.org,2002:float", floating, list("-+.0123456789"))

    def integers(loader: Any, node: Any) -> int:
        return int(loader.construct_scalar(node))

    def numbers(loader: Any, node: Any) -> float:
        return finite(loader.construct_scalar(node))

    Loader.add_constructor("tag:yaml.org,2002:int", integers)
    Loader.add_constructor("tag:yaml.org,2002:float", numbers)

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        pairs = [(loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value]
        for key, _ in pairs:
            if not isinstance(key, str):
                line = node.start_mark.line + 1
                raise BadSpec(f"line {line}: a mapping's keys are texts, got {key!r}; put it in quotes")
        return _no_twins(pairs)

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)

    def floats(dumper: Any, value: float) -> Any:
        if not math.isfinite(value):
            raise BadSpec(f"numbers are finite, got {value}")
        text = repr(value)
        if "e" in text and "." not in text:  # YAML 1.1 takes 1e-05 for text
            text = text.replace("e", ".0e")
        return dumper.represent_scalar("tag:yaml.org,2002:float", text)

    def texts(dumper: Any, value: str) -> Any:
        style = None if value.isprintable() else '"'  # breaks of lines and the like are escaped
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Dumper.add_representer(float, floats)
    Dumper.add_representer(str, texts)
    Dumper.yaml_implicit_resolvers = {
        key: [*Dumper.yaml_implicit_resolvers.get(key, []), *yaml.SafeDumper.yaml_implicit_resolvers.get(key, [])]
        for key in {*Dumper.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
    }
    return Loader, Dumper
