"""Published tensor names: rules from ours to theirs that run both ways.

A rule pairs dotted prefixes: what follows the prefix (`.weight`) is the same on both sides. `{i}` stands for an index;
on their side it may be scaled and shifted, as in `{2i+1}`. Several names on their side are stacked along the first axis
to make ours (q, k and v), several on ours are cut from theirs (class token's and grid's positions). The longest prefix
that fits wins, so that a rule for a part overrides a rule for its block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from .errors import BadWeights


@dataclass(frozen=True, slots=True)
class Rule:
    """One correspondence.

    `sizes` are the lengths of their several parts along the first axis; `ones` the places of axes of length 1 in their
    shape that ours lacks; `transpose` swaps the last two axes; `rows` says that all but the last axis of ours are one
    axis of theirs (a grid of positions); `channels_first` that their first axis is our last; `pixels` (height, width,
    channels) that their last axis is a patch with channels last, and ours a convolution's kernel. `pieces` has, for
    each of theirs, (groups, sizes): its rows are so many groups, each of pieces of these sizes (a head's query, key and
    value); ours are the pieces one after another, each with all its groups. `order` numbers the pieces, over all of
    theirs, as they stand in ours; as they come unless given.
    """

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    ones: tuple[int, ...] = ()
    transpose: bool = False
    rows: bool = False
    channels_first: bool = False
    pixels: tuple[int, int, int] | None = None
    pieces: tuple[tuple[int, tuple[int, ...]], ...] | None = None
    order: tuple[int, ...] | None = None

    @property
    def our_prefixes(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    @property
    def their_prefixes(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True)
class Dialect:
    """How somebody's checkpoints of a system name their tensors, and what they imply about the spec."""

    name: str
    rules: tuple[Rule, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the spec that these checkpoints imply."""
    ignores: tuple[str, ...] = ()
    """Regular expressions of their names that hold nothing of ours (tables worked out anew)."""


@cache
def _pattern(prefix: str) -> re.Pattern[str]:
    escaped = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(prefix))
    return re.compile(escaped + r"(?=\.|$)")


def _filled(template: str, indices: Mapping[str, str]) -> str:
    def number(match: re.Match[str]) -> str:
        return str(int(match[1] or 1) * int(indices[match[2]]) + int(match[3] or 0))

    return re.sub(r"\{(\d*)(\w)([+-]\d+)?\}", number, template)


@dataclass(frozen=True, slots=True)
class Match:
    """A rule applied to concrete names."""

    rule: Rule
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


def match(name: str, rules: Sequence[Rule]) -> Match | None:
    """The correspondence that our tensor `name` belongs to, or None."""
    best: tuple[int, Rule, re.Match[str]] | None = None
    for rule in rules:
        for prefix in rule.our_prefixes:
            if not name.startswith(prefix.partition("{")[0]):
                continue
            found = _pattern(prefix).match(name)
            if found and (best is None or len(prefix) > best[0]):
                best = len(prefix), rule, found
    if best is None:
        return None
    _, rule, found = best
    suffix, indices = name[found.end() :], found.groupdict()
    ours = tuple(_filled(prefix, indices) + suffix for prefix in rule.our_prefixes)
    return Match(rule, ours, tuple(_filled(prefix, indices) + suffix for prefix in rule.their_prefixes))


def expected(ours: Sequence[str], dialect: Dialect) -> set[str]:
    """Their names for all of ours that a rule reaches."""
    return {theirs for name in ours if (m := match(name, dialect.rules)) for theirs in m.theirs}


def plain(tensor: Tensor, rule: Rule) -> Tensor:
    """Their tensor with our axes."""
    for axis in sorted(rule.ones, reverse=True):
        if axis < tensor.dim() and tensor.shape[axis] == 1:
            tensor = tensor.squeeze(axis)
    if rule.pixels and tensor.shape[-1] == prod(rule.pixels):
        tensor = tensor.unflatten(-1, rule.pixels).movedim(-1, 1)
    if rule.channels_first:
        tensor = tensor.movedim(0, -1)
    return tensor.mT if rule.transpose else tensor


def published(tensor: Tensor, rule: Rule) -> Tensor:
    """Our tensor with their axes: what `plain` undoes."""
    if rule.transpose:
        tensor = tensor.mT
    if rule.channels_first:
        tensor = tensor.movedim(-1, 0)
    if rule.pixels:
        tensor = tensor.movedim(1, -1).flatten(1)
    for axis in sorted(rule.ones):
        tensor = tensor.unsqueeze(axis)
    return tensor.contiguous()


def to_ours(
    theirs: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], dialect: Dialect
) -> tuple[dict[str, Tensor], list[str]]:
    """Their tensors under our names, and what is wrong with them, name by name. Only axes of length 1 may differ."""
    state: dict[str, Tensor] = {}
    wrong: list[str] = []
    done: set[str] = set()
    for name in shapes:
        if name in done:
            continue
        found = match(name, dialect.rules)
        if found is None:
            wrong.append(f"{name}: {dialect.name} have no name for it")
            continue
        done.update(found.ours)  # what is cut from one tensor is judged with it, once
        if missing := [n for n in found.theirs if n not in theirs]:
            wrong.append(f"{missing[0]} is missing")
            continue
        if odd := [n for n in found.theirs if not theirs[n].numel() or (theirs[n].dim() == 0 and shapes[name])]:
            wrong.append(f"{odd[0]} is {list(theirs[odd[0]].shape)}, which holds nothing of {name}")
            continue
        parts = [plain(theirs[n], found.rule) for n in found.theirs]
        if found.rule.pieces:
            if bad := _uncut(parts, found):
                wrong.append(bad)
                continue
            parts = _cut(parts, found.rule)
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        ours = [shapes[n] for n in found.ours if n in shapes]
        rows = [prod(s[:-1]) if found.rule.rows else (s[0] if s else 1) for s in ours]
        if len(ours) > 1 or found.rule.rows:
            if whole.shape[0] != sum(rows):
                wrong.append(f"{found.theirs[0]} has {whole.shape[0]} rows, {sum(rows)} are needed")
                continue
            if whole.numel() != sum(prod(s) for s in ours):
                wrong.append(
                    f"{found.theirs[0]} is {list(theirs[found.theirs[0]].shape)}, {name} is {list(shapes[name])}"
                )
                continue
            pieces = [p.reshape(s) for p, s in zip(whole.split(rows), ours, strict=True)]
        else:
            pieces = [whole]
        for our_name, piece, our_shape in zip([n for n in found.ours if n in shapes], pieces, ours, strict=True):
            if [n for n in piece.shape if n > 1] != [n for n in our_shape if n > 1]:
                wrong.append(f"{found.theirs[0]} is {list(piece.shape)}, {our_name} is {list(our_shape)}")
            else:
                state[our_name] = piece.reshape(our_shape).contiguous()
    return state, wrong


def _uncut(parts: Sequence[Tensor], found: Match) -> str | None:
    """Why parts have not the rows that the rule's pieces take; None if they have."""
    for name, part, (groups, sizes) in zip(found.theirs, parts, found.rule.pieces or (), strict=True):
        if part.shape[0] != groups * sum(sizes):
            return f"{name} has {part.shape[0]} rows, {groups * sum(sizes)} are needed"
    return None


def _cut(parts: Sequence[Tensor], rule: Rule) -> list[Tensor]:
    """Their parts as our pieces in our order."""
    found = [
        piece.flatten(0, 1)
        for part, (groups, sizes) in zip(parts, rule.pieces or (), strict=True)
        for piece in part.unflatten(0, (groups, sum(sizes))).split(list(sizes), dim=1)
    ]
    return [found[i] for i in rule.order or range(len(found))]


def _joined(whole: Tensor, rule: Rule) -> list[Tensor]:
    """What `_cut` undoes, from our pieces in one tensor."""
    lengths = [groups * size for groups, sizes in rule.pieces or () for size in sizes]
    order = rule.order or tuple(range(len(lengths)))
    split = whole.split([lengths[i] for i in order])
    pieces = iter([split[order.index(i)] for i in range(len(lengths))])
    return [
        torch.cat([next(pieces).unflatten(0, (groups, size)) for size in sizes], dim=1).flatten(0, 1)
        for groups, sizes in rule.pieces or ()
    ]


def to_theirs(ours: Mapping[str, Tensor], dialect: Dialect) -> dict[str, Tensor]:
    """Our tensors under their names; BadWeights where no rule reaches one."""
    state: dict[str, Tensor] = {}
    done: set[str] = set()
    for name in ours:
        if name in done:
            continue
        found = match(name, dialect.rules)
        if found is None:
            raise BadWeights(f"{name} has no name in the dialect of {dialect.name}")
        done.update(found.ours)
        pieces = [ours[n] for n in found.ours if n in ours]
        if found.rule.rows:
            pieces = [p.flatten(0, -2) for p in pieces]
        whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        several = len(found.theirs)
        if found.rule.pieces:
            if whole.shape[0] != sum(groups * sum(sizes) for groups, sizes in found.rule.pieces):
                raise BadWeights(f"{name} has {whole.shape[0]} rows; {dialect.name} have other heads")
            for their_name, part in zip(found.theirs, _joined(whole, found.rule), strict=True):
                state[their_name] = published(part, found.rule)
            continue
        sizes = found.rule.sizes or (whole.shape[0] // several,) * several if several > 1 else (whole.shape[0],)
        if sum(sizes) != whole.shape[0] or len(sizes) != several:
            raise BadWeights(f"{name} has {whole.shape[0]} rows; {dialect.name} split them as {list(sizes)}")
        for their_name, piece in zip(found.theirs, whole.split(list(sizes)), strict=True):
            state[their_name] = published(piece, found.rule)
    return state
