"""Taking sublayers and blocks away, for good: modules, parameters, states and all."""

from __future__ import annotations

from torch import nn

from ..bodies.blocks.base import BaseBlock
from ..errors import CannotRewrite
from ..model import Model
from .rewrite import Step
from .surgery import module_at


class Removal(Step):
    """Sublayers of a block, by name, that are taken away together with their norms and layer scales."""

    block: str
    sublayers: list[str]


def remove(model: nn.Module, steps: list[Removal]) -> None:
    """Take away what `steps` name; CannotRewrite where it is not there, or cannot go without the rest of its block."""
    if isinstance(model, Model):
        for step in steps:
            _from_own(model, step)
    else:
        from .foreign import remove_foreign

        remove_foreign(model, steps)


def _from_own(model: Model, step: Removal) -> None:
    """The block stays as a shell that passes the stream on, so that paths, taps and states of the others stay."""
    block = module_at(model, step.block)
    if not isinstance(block, BaseBlock):
        raise CannotRewrite(f"{step.block} is a {type(block).__name__}, no block; was the plan edited?")
    present = [name for _, name, _ in block.steps()]
    if len(set(step.sublayers)) < len(step.sublayers):
        raise CannotRewrite(f"{step.block}: the plan drops a sublayer twice; it was edited")
    for name in step.sublayers:
        if name not in present:
            raise CannotRewrite(
                f"{step.block} has no {name!r} to drop (any more); it has {', '.join(present) or 'none'}"
            )
    if not block.scheme.separable and set(step.sublayers) != set(present):
        kind = type(block.scheme).__name__.lower()
        raise CannotRewrite(f"{step.block}: in the scheme {kind!r} a block's sublayers can only be dropped together")
    for name in step.sublayers:
        index = block.names.index(name)
        block.hang(name, None)
        block.scheme.norms[index] = nn.Identity()
        block.scheme.scales[index] = nn.Identity()
