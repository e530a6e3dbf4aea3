"""What every part declares about itself."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn


class Part(nn.Module):
    """An `nn.Module` with a role and a name, built as `Part(dim, *, option=default, ...)`.

    What a class attribute says, `__init__` may narrow for an instance whose options say less.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Small option sets on which the contract tests run it."""
    exports: bool = True
    """Whether torch.export and ONNX can carry it, with dynamic sizes."""
    looks_at_batch: bool = False
    """Whether an item's output in training depends on the other items of its batch."""
    reads: tuple[str, ...] = ()
    """Names of its linears and convolutions that read the tokens handed in; a fold into them needs these alone."""
    writes: tuple[str, ...] = ()
    """Names of its linears and convolutions whose output is the part's output; what is folded backward goes here."""
    undecayed: tuple[str, ...] = ()
    """Names of its parameters that weight decay should leave alone (beyond vectors, which it leaves alone anyway)."""

    def reset_derived(self) -> None:
        """Make buffers that follow from the options (masks, tables) again; called after loading."""


def positive(name: str, value: int) -> int:
    """`value`, or BadSpec if it is below 1."""
    from ..errors import BadSpec

    if value < 1:
        raise BadSpec(f"{name} is at least 1, got {value}")
    return value
