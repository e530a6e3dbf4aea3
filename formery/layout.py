"""The layout language: the order of blocks through depth, in one line.

    layout := item (" " item)*        item := word | "(" layout ")" | item "*" count

`(gated_deltanet*3 attention)*4` is sixteen blocks, every fourth of them attention. A word names an entry of a body's
`blocks`, or else a token mixer or channel mixer. Printing a parsed layout gives it back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BadSpec

MOST_WORDS = 4096
"""Deeper models than this are taken for slips of the pen."""

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z_][\w.-]*)|(?P<count>\*\s*\d+)|(?P<mark>[()]))")


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` (a word or a layout in parentheses) written `count` times."""

    item: str | Layout
    count: int

    def __str__(self) -> str:
        inner = self.item if isinstance(self.item, str) else f"({self.item})"
        return f"{inner}*{self.count}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Words, groups and repetitions in order, as they were written."""

    items: tuple[str | Layout | Repeat, ...]

    def __str__(self) -> str:
        return " ".join(f"({item})" if isinstance(item, Layout) else str(item) for item in self.items)

    def words(self) -> list[str]:
        """One word a block, repetitions written out; BadSpec beyond 4096."""
        words: list[str] = []
        for item in self.items:
            inner, count = (item.item, item.count) if isinstance(item, Repeat) else (item, 1)
            once = [inner] if isinstance(inner, str) else inner.words()
            if len(words) + len(once) * count > MOST_WORDS:
                raise BadSpec(f"layout {str(self)[:60]!r} has more than {MOST_WORDS} blocks")
            words += once * count
        return words


def parse(text: str) -> Layout:
    """The layout that `text` writes; BadSpec that shows the place where it stops being one."""
    open_groups: list[list[str | Layout | Repeat]] = [[]]
    position, text = 0, text.rstrip()
    repeatable = False
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise _bad(text, position, "expected a name, '(' , ')' or '*' with a count")
        start = found.end() - len(found[0].lstrip())
        items = open_groups[-1]
        if found["word"]:
            items.append(found["word"])
            repeatable = True
        elif found["count"]:
            digits = found["count"][1:].strip()
            count = int(digits) if len(digits) < 9 else MOST_WORDS + 1
            if not repeatable or isinstance(items[-1], Repeat):
                raise _bad(text, start, "a '*' with a count follows a name or a group, once")
            if not 1 <= count <= MOST_WORDS:
                raise _bad(text, start, f"a count is 1 to {MOST_WORDS}")
            last = items.pop()
            assert not isinstance(last, Repeat)
            items.append(Repeat(last, count))
            repeatable = False
        elif found["mark"] == "(":
            open_groups.append([])
            if len(open_groups) > 32:
                raise _bad(text, start, "groups are nested more than 32 deep")
            repeatable = False
        else:
            if len(open_groups) == 1:
                raise _bad(text, start, "')' without '('")
            group = open_groups.pop()
            if not group:
                raise _bad(text, start, "an empty group")
            open_groups[-1].append(Layout(tuple(group)))
            repeatable = True
        position = found.end()
    if len(open_groups) > 1:
        raise _bad(text, len(text), "'(' without ')'")
    if not open_groups[0]:
        raise BadSpec("an empty layout: write at least one block, e.g. 'attention*4'")
    return Layout(tuple(open_groups[0]))


def _bad(text: str, position: int, what: str) -> BadSpec:
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return BadSpec(f"layout {shown!r}, at character {position + 1}: {what}")


def compress(words: Sequence[str]) -> str:
    """A short layout with these words: neighbours that repeat, alone or as a period of the whole, are folded."""
    for period in range(1, len(words) // 2 + 1):
        count, rest = divmod(len(words), period)
        if not rest and list(words[:period]) * count == list(words):
            once = _runs(words[:period])
            return f"{once}*{count}" if re.fullmatch(r"[\w.-]+", once) else f"({once})*{count}"
    return _runs(words)


def _runs(words: Sequence[str]) -> str:
    runs: list[list[str]] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1].append(word)
        else:
            runs.append([word])
    return " ".join(run[0] if len(run) == 1 else f"{run[0]}*{len(run)}" for run in runs)
