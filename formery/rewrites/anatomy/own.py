"""The anatomy of formery's models, from what their parts declare."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import nn

from ... import registry
from ...bodies.blocks.base import BaseBlock
from ...errors import CannotRewrite
from ...model import Model
from ...parts.heads.branch_classes import BranchClasses
from ...parts.heads.classes import Classes
from ...parts.heads.distilled import Distilled
from ...parts.heads.mlp_classes import MLPClasses
from ...parts.heads.next_token import NextToken
from ...parts.mixers.mixer import Mixer
from ...parts.norms.norm import Norm
from ...parts.part import Part
from .anatomy import Anatomy, Block, Exit, Pair, Sublayer
from .declared import is_there, present
from .probing import is_pointwise
from .streams import stages_of


def anatomy(model: nn.Module) -> Anatomy:
    """What is where in a formery model; CannotRewrite names a body, block or scheme that is not known."""
    assert isinstance(model, Model)
    stages = stages_of(model.stem, model.body, partial(_head_exit, model.head), _block)
    tied = (("stem.embed.weight", "head.scores.weight"),) if getattr(model.head, "tie", False) else ()
    pairs, heads = tuple(_pairs(model)), tuple(_head_norms(model.head))
    return Anatomy("formery", type(model).__name__, stages, pairs, heads, tied)


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
                writes=tuple(f"{path}.{name}.{w}" for w in present(part, part.writes, forward=False)),
                heads=getattr(part, "heads", None),
                kv_heads=getattr(part, "kv_heads", None),
                reads_stream=scheme.separable or index == 0,
                writes_stream=scheme.separable or index == last,
                skips_some=isinstance(part, Mixer) and (part.partial or (bool(prefix) and _skips_prefix(part))),
            )
        )
    adds = scheme.only_adds and not own and block.keeps_width
    return Block(path, kind, scheme.norms_at, tuple(sublayers), scheme.separable, adds, block.keeps_width)


def _skips_prefix(mixer: Mixer) -> bool:
    return not (1 in mixer.grids or mixer.sees_prefix)


def _readers(part: Part, path: str) -> tuple[str, ...]:
    """What a sublayer declares to read, if all of it reads each token alone."""
    names = present(part, part.reads, forward=True)
    modules = [part.get_submodule(name) for name in names]
    return tuple(f"{path}.{name}" for name in names) if all(is_pointwise(m) for m in modules) else ()


def _head_exit(head: nn.Module, number: int) -> Exit:
    """How a head reads tensor number `number` of the tokens."""
    if type(head) is BranchClasses:
        own = isinstance(head.norm[number], Norm)
        return Exit(norm=f"head.norm.{number}") if own else Exit(why="the head reads it without a norm")
    if type(head) not in (Classes, Distilled, MLPClasses, NextToken):
        return Exit(why=f"the head {type(head).__name__} gives it out")
    if not isinstance(head.norm, Norm):
        return Exit(why="the head reads it without a norm")
    if isinstance(head, Classes) and head.order == "pool_norm" and head.pool == "max":
        return Exit(why="the head takes the maximum over it before its norm")
    if isinstance(head, Classes) and head.order == "pool_norm" and head.pool == "sequence":
        return Exit(why="the head weighs its tokens before its norm")
    return Exit(norm="head.norm")


def _head_norms(head: nn.Module) -> Iterator[tuple[str, str | None]]:
    """The head's norms, each with the dense layer behind it if nothing but a mean or a choice of tokens stands between
    the two."""
    if type(head) is BranchClasses:
        reader = head.fc is not None and head.pool != "max"
        for number, norm in enumerate(head.norm):
            if isinstance(norm, Norm):
                yield f"head.norm.{number}", f"head.fc.{number}" if reader else None
    elif isinstance(getattr(head, "norm", None), Norm):
        yield "head.norm", _classifier(head)


def _classifier(head: nn.Module) -> str | None:
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
                if is_there(module, first) and is_there(module, second):
                    yield Pair(f"{path}.{first}", f"{path}.{second}")
