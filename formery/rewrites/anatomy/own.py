"""The anatomy of formery's models, from what their parts declare."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ... import registry
from ...bodies.blocks.base import BaseBlock
from ...bodies.pyramid import Pyramid
from ...bodies.slow_fast import SlowFast
from ...bodies.stack import Stack
from ...errors import CannotRewrite
from ...model import Model
from ...parts.heads.classes import Classes
from ...parts.heads.distilled import Distilled
from ...parts.heads.mlp_classes import MLPClasses
from ...parts.heads.next_token import NextToken
from ...parts.mixers.mixer import Mixer
from ...parts.norms.norm import Norm
from ...parts.part import Part
from ...parts.positions.learned import Learned
from .anatomy import Anatomy, Block, Exit, Pair, Source, Stage, Sublayer
from .probing import is_pointwise


def anatomy(model: nn.Module) -> Anatomy:
    """What is where in a formery model; CannotRewrite names a body, block or scheme that is not known."""
    assert isinstance(model, Model)
    stages: list[Stage] = []
    stacks = list(_stacks(model.body, "body"))
    prefix = 0
    for number, (path, stack) in enumerate(stacks):
        sources = _from_part(model.stem, "stem") if number == 0 and stack.merge is None else ()
        if stack.merge is not None:
            sources = _from_part(stack.merge, f"{path}.merge")
        elif number:
            sources = (Source(stacks[number - 1][0], "other", "the stage before it, without a merge between"),)
        following = stacks[number + 1] if number + 1 < len(stacks) else None
        prefix += 0 if isinstance(stack, SlowFast) or stack.prefix is None else len(stack.prefix)
        stages.append(
            Stage(
                path,
                stack.dim,
                (*sources, *_placed(stack, path)),
                tuple(_block(block, f"{path}.blocks.{i}", prefix) for i, block in enumerate(stack.blocks)),
                _head_exit(model) if following is None else _merge_exit(*following),
                prefix,
            )
        )
    head_norm = "head.norm" if isinstance(getattr(model.head, "norm", None), Norm) else None
    tied = (("stem.embed.weight", "head.scores.weight"),) if getattr(model.head, "tie", False) else ()
    reader = _classifier(model.head)
    return Anatomy("formery", type(model).__name__, tuple(stages), tuple(_pairs(model)), head_norm, reader, tied)


def _stacks(body: nn.Module, path: str) -> Iterator[tuple[str, Stack | SlowFast]]:
    if type(body) is Stack or type(body) is SlowFast:
        yield path, body
    elif type(body) is Pyramid:
        for index, stage in enumerate(body.stages):
            yield from _stacks(stage, f"{path}.stages.{index}")
    else:
        kind = registry.name_of("body", type(body)) or type(body).__name__
        raise CannotRewrite(f"{path}: rewrites do not know the body {kind!r}; they know stack, slow_fast and pyramid")


def _from_part(part: Part, path: str) -> tuple[Source, ...]:
    """What a stem or merge begins the stream with."""
    if not part.writes:
        return (Source(path, "other", f"{type(part).__name__}, which declares nothing that writes"),)
    sources = []
    for name in _present(part, part.writes, forward=False):
        module, full = part.get_submodule(name), f"{path}.{name}"
        if isinstance(module, nn.Embedding):
            sources.append(Source(f"{full}.weight", "table"))
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            sources.append(Source(full, "dense"))
        else:
            sources.append(Source(full, "other", f"the output of a {type(module).__name__} norm"))
    return tuple(sources)


def _placed(stack: Stack | SlowFast, path: str) -> Iterator[Source]:
    """What a stack puts in front of its tokens and adds to them."""
    if isinstance(stack, SlowFast):
        yield Source(path, "other", "a class token, and tokens that stand for others")
        return
    if stack.prefix is not None:
        yield Source(f"{path}.prefix", "table")
    position = stack.position
    if position is None:
        return
    if type(position) is Learned:
        yield Source(f"{path}.position.table", "table")
        if position.prefix is not None:
            yield Source(f"{path}.position.prefix", "table")
    else:
        yield Source(f"{path}.position", "other", f"{type(position).__name__} positions, which are no weights")


def _block(block: nn.Module, path: str, prefix: int) -> Block:
    if not isinstance(block, BaseBlock):
        raise CannotRewrite(f"{path}: rewrites do not know the block {type(block).__name__}")
    scheme = block.scheme
    kind = registry.name_of("scheme", type(scheme)) or type(scheme).__name__
    if getattr(scheme, "norms_at", None) is None:
        raise CannotRewrite(f"{path}.scheme: the scheme {kind!r} does not say where its norms stand (norms_at)")
    # A factor on the stream, or any other tensor of the scheme's own, is no mere adding.
    own = [name for name, _ in scheme.named_parameters() if not name.startswith(("norms.", "scales."))]
    sublayers = []
    last = len(block.names) - 1
    for index, name, part in block.steps():
        assert isinstance(part, Part)
        norm, scale = scheme.norms[index], scheme.scales[index]
        mixer = isinstance(part, Mixer)
        sublayers.append(
            Sublayer(
                name=name,
                role="mixer" if mixer else "channel",
                path=f"{path}.{name}",
                kind=registry.name_of("mixer" if mixer else "channel", type(part)) or type(part).__name__,
                norm=None if isinstance(norm, nn.Identity) else f"{path}.scheme.norms.{index}",
                scale=None if isinstance(scale, nn.Identity) else f"{path}.scheme.scales.{index}",
                reads=_readers(part, f"{path}.{name}"),
                writes=tuple(f"{path}.{name}.{w}" for w in _present(part, part.writes, forward=False)),
                heads=getattr(part, "heads", None),
                kv_heads=getattr(part, "kv_heads", None),
                reads_stream=scheme.separable or index == 0,
                writes_stream=scheme.separable or index == last,
                skips_prefix=isinstance(part, Mixer) and bool(prefix) and not (1 in part.grids or part.sees_prefix),
            )
        )
    adds = scheme.only_adds and not own and block.keeps_width
    return Block(path, kind, scheme.norms_at, tuple(sublayers), scheme.separable, adds, block.keeps_width)


def _present(part: Part, names: tuple[str, ...], *, forward: bool) -> tuple[str, ...]:
    """Declared readers or writers; a norm that was folded away (None now) hands its place to its neighbour."""
    near = dict(part.neighbours) if forward else {second: first for first, second in part.neighbours}
    found = []
    for name in names:
        here: str | None = name
        while here is not None and not _there(part, here):
            here = near.get(here)
        if here is None:
            return ()
        found.append(here)
    return tuple(found)


def _readers(part: Part, path: str) -> tuple[str, ...]:
    """What a sublayer declares to read, if all of it reads each token alone."""
    names = _present(part, part.reads, forward=True)
    modules = [part.get_submodule(name) for name in names]
    return tuple(f"{path}.{name}" for name in names) if all(is_pointwise(m) for m in modules) else ()


def _merge_exit(path: str, stack: Stack | SlowFast) -> Exit:
    merge = stack.merge
    if merge is None:
        return Exit(why=f"{path} reads it without a merge")
    reads = [(name, merge.get_submodule(name)) for name in _present(merge, merge.reads, forward=True)]
    if len(reads) == 1 and isinstance(reads[0][1], Norm):
        return Exit(norm=f"{path}.merge.{reads[0][0]}")
    what = reads[0][0] if reads else type(merge).__name__
    return Exit(why=f"{path}.merge reads it without a norm ({what})")


def _head_exit(model: Model) -> Exit:
    head = model.head
    if type(head) not in (Classes, Distilled, MLPClasses, NextToken):
        return Exit(why=f"the head {type(head).__name__} gives it out")
    if not isinstance(head.norm, Norm):
        return Exit(why="the head reads it without a norm")
    if isinstance(head, Classes) and head.order == "pool_norm" and head.pool == "max":
        return Exit(why="the head takes the maximum over it before its norm")
    if isinstance(head, Classes) and head.order == "pool_norm" and head.pool == "sequence":
        return Exit(why="the head weighs its tokens before its norm")
    return Exit(norm="head.norm")


def _classifier(head: nn.Module) -> str | None:
    """The dense layer behind a head's norm, if nothing but a mean or a choice of tokens stands between the two."""
    if type(head) not in (Classes, MLPClasses) or not isinstance(head, Classes) or head.fc is None:
        return None
    if head.order == "norm_pool" and head.pool == "max":
        return None
    return "head.fc" if type(head) is Classes else "head.expand"


def _pairs(model: Model) -> Iterator[Pair]:
    """The neighbours that parts declare, as far as they are there."""
    for path, module in model.named_modules():
        if isinstance(module, Part):
            for first, second in module.neighbours:
                if _there(module, first) and _there(module, second):
                    yield Pair(f"{path}.{first}", f"{path}.{second}")


def _there(module: nn.Module, name: str) -> bool:
    part: nn.Module | None = module
    for step in name.split("."):
        part = getattr(part, step, None)
    return isinstance(part, nn.Module) and not isinstance(part, nn.Identity)
