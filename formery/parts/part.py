"""What every part declares about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, ClassVar, TypeGuard, TypeVar

from torch import Tensor, nn

from ..errors import BadSpec
from ..spec import options, short

Resize = Callable[[Tensor, tuple[int, ...], tuple[int, ...]], Tensor]
"""(tensor, old grid, new grid) -> the tensor at the new grid."""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Part(nn.Module):
    """An `nn.Module` with a role and a name, built as `Part(dim, *, option=default, ...)`.

    What a class attribute says, `__init__` may narrow for an instance whose options say less.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Small option sets on which the contract tests run it."""
    unseen: ClassVar[tuple[str, ...]] = ()
    """Options that change what it computes from the same tensors: the shapes of published ones cannot show them."""
    exports: bool = True
    """Whether torch.export and ONNX can carry it, with dynamic sizes."""
    looks_at_batch: bool = False
    """Whether an item's output in training depends on the other items of its batch."""
    surrogate: bool = False
    """Whether its output has steps, so that what goes backward is a signal to learn by and not the slope."""
    reads: tuple[str, ...] = ()
    """Names of its linears, convolutions and norms that read the tokens handed in; a fold into them needs no others.
    Means over tokens may stand in between, with factors that sum to 1: what is a factor and a shift of each channel
    passes them unchanged."""
    writes: tuple[str, ...] = ()
    """Names of its linears, convolutions, norms and tables whose output is the part's output; what is folded backward
    goes here."""
    neighbours: tuple[tuple[str, str], ...] = ()
    """Pairs of its modules of which the second reads what the first gives, all of it and nothing else, with nothing in
    between: no activation, no padding of the part's own. A norm of a pair may be None; then it is left out."""
    shares: tuple[str, ...] = ()
    """Names of its parameters that all parts of its class in one stack of blocks have in common."""
    undecayed: tuple[str, ...] = ()
    """Names of its parameters that weight decay should leave alone (beyond vectors, which it leaves alone anyway)."""
    frozen: tuple[str, ...] = ()
    """Names of its parameters that stay as they began: saved and counted like others, without gradient."""

    parallel: tuple[str, ...] = ()
    """Options whose parts stand side by side, so that their blocks begin at one depth."""

    resizes: Mapping[str, Resize] = {}
    """Names of its tensors that are bound to its `grid`, and how each is carried over to another."""
    resizable: bool = True
    """Whether they can be carried over at all."""

    def bound_tokens(self, name: str, shape: tuple[int, ...]) -> int:
        """How many tokens a tensor named in `resizes`, found with this shape, is made for: rows unless said."""
        return prod(shape[:-1])

    def first_values(self) -> None:
        """Set first values that a model's common rule for linears and convolutions does not give; called after it."""

    def reset_derived(self) -> None:
        """Make buffers that follow from the options (masks, tables) again; called after loading, and whenever the part
        is moved or cast, so that tables are never rounded twice."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reset_derived()
        return module


def idle(part: type[Part], when: str, **given: Any) -> None:
    """BadSpec for an option of a part that was set though it has no effect `when` the others are as they are."""
    schema = options(part.__init__)
    for name, value in given.items():
        if value != schema[name].default:
            raise BadSpec(f"{name} has no effect {when}, got {short(value)}; leave it out")


def untouched(module: nn.Module, kind: type[ModuleT]) -> TypeGuard[ModuleT]:
    """Whether `module` is just a `kind`: nobody replaced it or its forward, or looks at what goes in and comes out.

    Then the part that owns it may do its work by other means.
    """
    if type(module) is not kind or "forward" in module.__dict__:
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)
