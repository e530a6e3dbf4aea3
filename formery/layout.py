"""The layout language: the order of blocks through depth, in one line.

    layout := item (" " item)*        item := word | "(" layout ")" | call | item "*" count
    call := "allocate(" count ["," word] ("," word "=" share)* ")"

`(gated_deltanet*3 attention)*4` is sixteen blocks, every fourth of them attention. A word names an entry of a body's
`blocks`, or else a token mixer or channel mixer. A call spreads words by shares: `allocate(56, attention=.08, mlp=.5)`
is Mamba-2-Hybrid's order of 56 blocks (see `allocate`). Printing a parsed layout gives it back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import BadSpec

MOST_WORDS = 4096
"""Deeper models than this are taken for slips of the pen."""

_CALL = r"allocate\([^()]*\)?"
_TOKEN = re.compile(rf"\s*(?:(?P<call>{_CALL})|(?P<word>[A-Za-z_][\w.-]*)|(?P<count>\*\s*\d+)|(?P<mark>[()]))")
_ARGUMENTS = re.compile(
    r"allocate\(\s*(?P<count>\d{1,8})\s*(?:,\s*(?P<rest>[A-Za-z_][\w.-]*)\s*(?=[,)]))?(?P<shares>(?:,[^,)]*)*)\)"
)
_SHARE = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*=\s*(\d+\.?\d*|\.\d+)\s*")
REST = "mamba2"
"""The word that a call fills up with where it names none."""


@dataclass(frozen=True, slots=True)
class Call:
    """`allocate` with its arguments; shares as they were written."""

    count: int
    shares: tuple[tuple[str, str], ...]
    rest: str | None = None

    def __str__(self) -> str:
        given = [str(self.count), *([self.rest] if self.rest else []), *(f"{word}={s}" for word, s in self.shares)]
        return f"allocate({', '.join(given)})"

    def words(self) -> list[str]:
        """One word a block; BadSpec where the shares are more than a whole."""
        return allocate(self.count, {word: float(share) for word, share in self.shares}, self.rest or REST)


def ramp(most: float, number: int, count: int) -> float:
    """What block `number` of `count` has of something that rises evenly from 0 in the first to `most` in the last."""
    return most * (number / max(1, count - 1))  # in the last exactly `most`


def allocate(count: int, shares: Mapping[str, float], rest: str = REST) -> list[str]:
    """`count` words: the first word of `shares` spread evenly, neither first nor last; the second evenly over what is
    left, the last of them at its end; `rest` elsewhere (Mamba-2-Hybrid, arXiv 2406.07887, by Megatron-LM's rule).

    Numbers of words are shares of the whole, halves rounded to the even number. BadSpec where they do not fit.
    """
    if not 1 <= count <= MOST_WORDS:
        raise BadSpec(f"allocate: a number of blocks is 1 to {MOST_WORDS}, got {count}")
    if len(shares) > 2 or rest in shares or not all(0 <= share <= 1 for share in shares.values()):
        raise BadSpec(f"allocate: at most two words beside {rest!r} have shares, of 0 to 1; got {dict(shares)}")
    numbers = [(word, round(count * share)) for word, share in shares.items()]
    free = count - sum(number for _, number in numbers)
    if free < 0:
        listed = " and ".join(f"{number} {word}" for word, number in numbers)
        raise BadSpec(f"allocate: {listed} are more than {count} blocks")
    words = [rest] * count
    for turn, (word, number) in enumerate(numbers):
        if number:
            _space(words, rest, word, free / number if turn else (count - number) / (number + 1))
    return words


def _space(words: list[str], over: str, word: str, gap: float) -> None:
    """Put `word` in places of `over`, about `gap` of them apart, the first after such a gap."""
    wait = gap
    for i, there in enumerate(words):
        if there == over:
            if wait < 0.5:
                words[i], wait = word, wait + gap
            else:
                wait -= 1


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` (a word, a call or a layout in parentheses) written `count` times."""

    item: str | Call | Layout
    count: int

    def __str__(self) -> str:
        inner = f"({self.item})" if isinstance(self.item, Layout) else self.item
        return f"{inner}*{self.count}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Words, calls, groups and repetitions in order, as they were written."""

    items: tuple[Item, ...]

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


Item = str | Call | Layout | Repeat


def parse(text: str) -> Layout:
    """The layout that `text` writes; BadSpec that shows the place where it stops being one."""
    open_groups: list[list[Item]] = [[]]
    position, text = 0, text.rstrip()
    repeatable = False
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise _bad(text, position, "expected a name, '(' , ')' or '*' with a count")
        start = found.end() - len(found[0].lstrip())
        items = open_groups[-1]
        if found["call"]:
            items.append(_call(text, found["call"], start))
            repeatable = True
        elif found["word"]:
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


def _call(text: str, written: str, start: int) -> Call:
    """What a call says; BadSpec where it is none, or where its shares do not fit."""
    found = _ARGUMENTS.fullmatch(written)
    pairs = [_SHARE.fullmatch(pair) for pair in found["shares"].split(",")[1:]] if found else [None]
    if found is None or not all(pairs) or len({pair[1] for pair in pairs if pair}) < len(pairs):
        raise _bad(text, start, "a call says how many blocks, then shares, as in allocate(56, attention=.08, mlp=.5)")
    call = Call(int(found["count"]), tuple((pair[1], pair[2]) for pair in pairs if pair), found["rest"])
    call.words()
    return call


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
