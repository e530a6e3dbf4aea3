"""How somebody says which of several ways an op goes: for a block of code, or in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import BadSpec


class Switch:
    """One of the names `modes`; the first holds where nobody asks for another. `what` is how messages call it."""

    def __init__(self, what: str, variable: str, modes: Sequence[str]) -> None:
        self.what, self.variable, self.modes = what, variable, tuple(modes)
        self._asked: ContextVar[str | None] = ContextVar(variable.lower(), default=None)

    def __call__(self) -> str:
        """What the innermost `using`, else the environment, asks for; BadSpec for an unknown name there."""
        asked = self._asked.get()
        if asked is not None:
            return asked
        named = os.environ.get(self.variable)
        return self.modes[0] if named is None else self.valid(named, self.variable)

    def valid(self, name: str, where: str) -> str:
        """The name, or BadSpec."""
        if name not in self.modes:
            raise BadSpec(f"{where} is {name!r}; it is one of {', '.join(self.modes)}")
        return name

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Within the block this mode holds."""
        token = self._asked.set(self.valid(name, self.what))
        try:
            yield
        finally:
            self._asked.reset(token)
