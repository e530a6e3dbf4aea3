"""Names of parts and where they live.

The tree is the registry: a role (mixer, norm, ...) is a folder, and the folder's `__init__.py` holds `INDEX`, a table
from names to `module:Class`. Nothing is imported before it is asked for, so names are listed without torch, and no
import has side effects. Other packages add parts by entry points of the group `formery.<role>`, notebooks by
`register`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import BadSpec, UnknownName

HOMES = {
    "stem": "formery.parts.stems",
    "mixer": "formery.parts.mixers",
    "channel": "formery.parts.channels",
    "norm": "formery.parts.norms",
    "position": "formery.parts.positions",
    "merge": "formery.parts.merges",
    "head": "formery.parts.heads",
    "scheme": "formery.parts.schemes",
    "block": "formery.bodies.blocks",
    "body": "formery.bodies",
    "rewrite": "formery.rewrites",
    "task": "formery.tasks",
    "data": "formery.data",
    "probe": "formery.data.probes",
}
"""Where the parts of each role live."""

UNIONS = {"sublayer": ("mixer", "channel")}
"""Roles that are answered by any of several others: a block's sublayer is a mixer or a channel mixer."""

NAME = re.compile(r"[A-Za-z_][\w.-]*")
"""What layouts can say."""

_registered: dict[tuple[str, str], str | type] = {}


@cache
def _own(role: str) -> dict[str, str]:
    home = HOMES[role]
    return {name: f"{home}.{target}" for name, target in import_module(home).INDEX.items()}


@cache
def _foreign(role: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"formery.{role}")}


def index(role: str) -> dict[str, str]:
    """Every name of `role` with its `module:Class`, sorted by name."""
    if role in UNIONS:
        return dict(sorted(item for member in UNIONS[role] for item in index(member).items()))
    if role not in HOMES:
        raise UnknownName(f"no role is called {role!r}; {nearest(role, HOMES)}")
    outside = {name: entry.value for name, entry in _foreign(role).items()}
    noted = {
        name: target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
        for (of, name), target in _registered.items()
        if of == role
    }
    return dict(sorted({**outside, **noted, **_own(role)}.items()))


def nearest(name: str, names: Iterable[str], most: int = 12, otherwise: str = "") -> str:
    """A hint for an unknown name: the nearest known ones, or where none is alike (a few of) all of them.

    `otherwise` is said instead where they are too many for a few to tell anything.
    """
    known = sorted(names)
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        likeness = [difflib.SequenceMatcher(None, candidate, name).ratio() for candidate in near]
        likely = [candidate for candidate, ratio in zip(near, likeness, strict=True) if ratio > likeness[0] - 0.15]
        return f"did you mean {' or '.join(likely)}?"
    if otherwise:
        return otherwise
    shown = ", ".join(known[:most])
    return f"there are: {shown}{', ...' if len(known) > most else ''}" if known else "there are none"


def find(role: str, name: str) -> Any:
    """The class registered as `name`; UnknownName, with the nearest names, where there is none."""
    if role not in UNIONS and role not in HOMES:
        raise UnknownName(f"no role is called {role!r}; {nearest(role, HOMES)}")
    target: str | type | EntryPoint | None = None
    for member in UNIONS.get(role, (role,)):
        target = target or _registered.get((member, name)) or _own(member).get(name) or _foreign(member).get(name)
    if target is None:
        raise UnknownName(f"no {role} is called {name!r}; {nearest(name, index(role))}")
    if isinstance(target, type):
        return target
    try:
        if isinstance(target, EntryPoint):
            return target.load()
        module, _, member = target.partition(":")
        return getattr(import_module(module), member)
    except (ImportError, AttributeError) as error:
        value = target.value if isinstance(target, EntryPoint) else target
        raise UnknownName(f"{role} {name!r} should be {value}, which cannot be imported: {error}") from error


def role_of(role: str, name: str) -> str:
    """`role`, or, of a role that others answer, the one that has the name: a sublayer's "mixer" or "channel"."""
    return next((member for member in UNIONS.get(role, ()) if name in index(member)), role)


def register(role: str, name: str, target: str | type) -> None:
    """Add a part for the rest of this process: a class, or `"module:Class"` to be imported when it is first asked for.

    BadSpec if the name is taken, by formery or by another package: a name means one thing, in layouts as well.
    """
    siblings = [member for members in UNIONS.values() if role in members for member in members]
    taken = {known: target for member in (role, *siblings) for known, target in index(member).items()}
    if name in taken and _registered.get((role, name)) is not target:
        raise BadSpec(
            f"{role} {name!r} is already {taken[name]}; choose another name, or take it back with registry.unregister"
        )
    if not (isinstance(target, type) or callable(target) or (isinstance(target, str) and ":" in target)):
        raise BadSpec(f"cannot register {target!r}: a target is a class or 'module:Class'")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadSpec(f"cannot register {name!r}: a name is a letter, then letters, digits, '_', '.' or '-'")
    _registered[role, name] = target


def unregister(role: str, name: str) -> None:
    """Forget what `register` added (a notebook's cell run again, the end of a test)."""
    _registered.pop((role, name), None)


def name_of(role: str, part: type) -> str | None:
    """The registered name of a class, or None."""
    wanted = f"{part.__module__}:{part.__qualname__}"
    return next((name for name, target in index(role).items() if target == wanted), None)
