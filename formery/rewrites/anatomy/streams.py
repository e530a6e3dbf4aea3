"""The residual streams of formery's bodies: where each begins, which blocks stand along it, and what reads it.

A stage that merges tokens begins a stream; one that does not goes on with that of the stage before it. Bodies with
several streams are described as they are wired: CrossViT's fusion stands along the stream of the branch that it asks,
into which the other branch's class tokens come through a dense layer and leave through a norm; TNT's words and tokens
are two streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import nn

from ... import registry
from ...bodies.branches import Branches
from ...bodies.nested import Nested
from ...bodies.pyramid import Pyramid
from ...bodies.slow_fast import SlowFast
from ...bodies.stack import Stack
from ...errors import CannotRewrite
from ...parts.norms.norm import Norm
from ...parts.part import Part
from ...parts.positions.learned import Learned
from ...parts.stems.scales import Scales
from .anatomy import Block, Exit, Source, Stage
from .declared import present

BlockOf = Callable[[nn.Module, str, int], Block]
"""(block, its path, prefix tokens in front of the grid's) -> its anatomy."""


@dataclass(slots=True)
class Draft:
    """A stage that is still being described; one without a path is what the stem gives."""

    path: str
    width: int
    stream: int
    prefix: int
    sources: list[Source] = field(default_factory=list)
    blocks: tuple[Block, ...] = ()
    exits: list[Exit] = field(default_factory=list)
    between: bool = False

    def stage(self) -> Stage:
        """The same, as the anatomy has it."""
        return Stage(
            self.path, self.width, tuple(self.sources), self.blocks, tuple(self.exits), self.prefix,
            stream=self.stream, between=self.between,
        )  # fmt: skip


def stages_of(stem: nn.Module, body: nn.Module, head_exit: Callable[[int], Exit], block: BlockOf) -> tuple[Stage, ...]:
    """The stages of a model, given what its head reads of tensor number i; CannotRewrite names an unknown body."""
    walk = _Walk(block)
    members = stem.stems if isinstance(stem, Scales) else None
    stems = [("stem", stem)] if members is None else [(f"stem.stems.{i}", one) for i, one in enumerate(members)]
    begun = []
    for path, one in stems:
        assert isinstance(one, Part)
        width: Any = one.dim
        begun.append(Draft("", width, next(walk.streams), 0, list(from_part(one, path))))
    for number, last in enumerate(walk.through(body, "body", tuple(begun))):
        last.exits.append(head_exit(number))
    for first in begun:  # what is said of the stem's stream is said of the first stage along it
        for draft in walk.drafts:
            if draft.stream == first.stream:
                draft.sources[:0] = first.sources
                draft.exits[:0] = first.exits
                break
    return tuple(draft.stage() for draft in walk.drafts)


class _Walk:
    """Through a body, from stage to stage."""

    def __init__(self, block: BlockOf) -> None:
        self.block = block
        self.drafts: list[Draft] = []
        self.streams = count()

    def through(self, body: nn.Module, path: str, given: tuple[Draft, ...]) -> tuple[Draft, ...]:
        """The stages that end with a body's tokens, one a tensor, from those that end with what goes into it."""
        if type(body) is Stack or type(body) is SlowFast:
            return (self.stack(body, path, *given),)
        if type(body) is Nested:
            return (self.nested(body, path, *given),)
        if type(body) is Branches:
            return self.branches(body, path, given)
        if type(body) is Pyramid:
            for index, stage in enumerate(body.stages):
                given = self.through(stage, f"{path}.stages.{index}", given)
            return given
        kind = registry.name_of("body", type(body)) or type(body).__name__
        raise CannotRewrite(f"{path}: rewrites do not know the body {kind!r}")

    def begin(self, path: str, width: int, prefix: int, stream: int | None = None) -> Draft:
        """A new stage, of a stream of its own where none is given."""
        draft = Draft(path, width, next(self.streams) if stream is None else stream, prefix)
        self.drafts.append(draft)
        return draft

    def blocks(self, blocks: Any, path: str, prefix: int) -> tuple[Block, ...]:
        return tuple(self.block(block, f"{path}.{i}", prefix) for i, block in enumerate(blocks))

    def stack(self, body: Stack | SlowFast, path: str, before: Draft) -> Draft:
        if body.merge is None:
            here = self.begin(path, body.dim, before.prefix, before.stream)
        else:
            before.exits.append(_merge_exit(path, body.merge))
            here = self.begin(path, body.dim, before.prefix)
            here.sources += from_part(body.merge, f"{path}.merge")
        if isinstance(body, SlowFast):
            here.sources.append(Source(path, "other", "a class token, and tokens that stand for others"))
        else:
            here.sources += _placed(body, path)
            here.prefix += 0 if body.prefix is None else len(body.prefix)
        here.blocks = self.blocks(body.blocks, f"{path}.blocks", here.prefix)
        return here

    def branches(self, body: Branches, path: str, given: tuple[Draft, ...]) -> tuple[Draft, ...]:
        """One tensor goes to all branches alike: those without a merge go on with one stream."""
        given = given if len(given) == len(body.branches) else given * len(body.branches)
        ends = [self.through(branch, f"{path}.branches.{b}", (given[b],))[0] for b, branch in enumerate(body.branches)]
        for b, fusion in enumerate(body.fusions):
            asked = ends[(b + 1) % len(ends)]
            ends[b].exits.append(_through_norm(body.leaving[b].norm, f"{path}.leaving.{b}"))
            ends[b].sources.append(Source(f"{path}.returning.{b}.dense", "dense"))
            here = self.begin(f"{path}.fusions.{b}", asked.width, body.num_prefix, asked.stream)
            here.between = True
            here.sources.append(Source(f"{path}.leaving.{b}.dense", "dense"))
            here.blocks = (self.block(fusion, here.path, body.num_prefix),)
            here.exits.append(_through_norm(body.returning[b].norm, f"{path}.returning.{b}"))
        return tuple(ends)

    def nested(self, body: Nested, path: str, before: Draft) -> Draft:
        """Words are one stream, tokens another, which begins and goes on with joins of words."""
        before.exits.append(Exit(why=f"{path} takes its tokens apart into words"))
        inner = self.begin(f"{path}.inner", before.width // body.side**2, 0)
        inner.sources.append(Source(f"{path}.enter", "other", "words, all of a token normed together here"))
        inner.sources += _positions(body.inner_position, f"{path}.inner_position")
        inner.blocks = self.blocks(body.inner, inner.path, 0)
        outer = self.begin(f"{path}.outer", body.dim, before.prefix + body.num_prefix)
        outer.sources += [*from_part(body.enter, f"{path}.enter"), *_placed(body, path)]
        outer.blocks = self.blocks(body.outer, outer.path, outer.prefix)
        joins = [(body.enter, f"{path}.enter"), *((j, f"{path}.joins.{i}") for i, j in enumerate(body.joins))]
        for number, (join, where) in enumerate(joins):
            assert isinstance(join, Part)
            inner.exits.append(_through_norm(join.norm, where))
            outer.sources += from_part(join, where) if number else ()
        return outer


def from_part(part: Part, path: str) -> tuple[Source, ...]:
    """What a stem, merge or join puts into the stream."""
    if not part.writes:
        return (Source(path, "other", f"{type(part).__name__}, which declares nothing that writes"),)
    sources = []
    for name in present(part, part.writes, forward=False):
        module, full = part.get_submodule(name), f"{path}.{name}"
        if isinstance(module, nn.Embedding):
            sources.append(Source(f"{full}.weight", "table"))
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            sources.append(Source(full, "dense"))
        else:
            sources.append(Source(full, "other", f"the output of a {type(module).__name__} norm"))
    return tuple(sources)


def _placed(body: Stack | Nested, path: str) -> Iterator[Source]:
    """What a body puts in front of its tokens and adds to them."""
    if body.prefix is not None:
        yield Source(f"{path}.prefix", "table")
    yield from _positions(body.position, f"{path}.position")


def _positions(position: Any, path: str) -> Iterator[Source]:
    if position is None:
        return
    if type(position) is Learned:
        yield Source(f"{path}.table", "table")
        if position.prefix is not None:
            yield Source(f"{path}.prefix", "table")
    else:
        yield Source(path, "other", f"{type(position).__name__} positions, which are no weights")


def _merge_exit(path: str, merge: Part) -> Exit:
    reads = [(name, merge.get_submodule(name)) for name in present(merge, merge.reads, forward=True)]
    if len(reads) == 1 and isinstance(reads[0][1], Norm):
        return Exit(norm=f"{path}.merge.{reads[0][0]}")
    what = reads[0][0] if reads else type(merge).__name__
    return Exit(why=f"{path}.merge reads it without a norm ({what})")


def _through_norm(norm: Any, path: str) -> Exit:
    """What reads the stream through a norm of its own, as long as that is there."""
    return Exit(norm=f"{path}.norm") if isinstance(norm, Norm) else Exit(why=f"{path} reads it without a norm")
