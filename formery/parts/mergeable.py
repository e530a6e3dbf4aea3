"""Parts that learn with parallel branches and work with one (RepVGG, arXiv 2101.03697)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

from ..errors import CannotRun


@runtime_checkable
class Mergeable(Protocol):
    """A module whose parallel branches can be merged, so that evaluation gives what it gave before."""

    @property
    def branched(self) -> bool:
        """Whether there are branches to merge (still)."""

    def reparameterize(self) -> None:
        """Merge them, in place and for good; nothing where there are none. CannotRun in training mode, where the
        branches' batch norms do not yet give what they give in evaluation. The name is timm's."""


def is_learning(part: nn.Module) -> bool:
    """Whether a part is in training mode; one without values has none that could change."""
    return part.training and not any(parameter.is_meta for parameter in part.parameters())


def check_settled(part: nn.Module) -> None:
    """CannotRun for a part that is learning."""
    if is_learning(part):
        raise CannotRun("branches are merged with the statistics of evaluation; call eval() first")
