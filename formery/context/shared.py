"""What all layers share in one forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Context:
    """What every layer may know in one forward. Nothing is stored on modules."""

    causal: bool = False
    """Whether a token may not see later ones; mixers that are causal on request look here."""
    grid: tuple[int, ...] = ()
    """The grid that flattened tokens stand on: (L,), (H, W) or (T, H, W); empty where the tensor itself has it."""
    prefix: int = 0
    """How many tokens (class, registers) stand before the grid's in a flattened sequence."""
    positions: Tensor | None = None
    """(B, L) or (L,) place of each token in its sequence; None means 0, 1, 2, ..."""
    padding: Tensor | None = None
    """(B, L) True where a token of this chunk is padding (at either end of a row)."""
    key_padding: Tensor | None = None
    """(B, past + L) the same with the tokens that a state holds in front; None where there is no padding at all."""
    bounds: Tensor | None = None
    """(N + 1,) offsets of N sequences packed along L; then B is 1."""
    lower_bound: Tensor | None = None
    """(C,) log of what the forget gates of this block keep at least; None where its body sets no bound."""
    taps: tuple[int, ...] = ()
    """Which of a body's maps (stages of a pyramid, blocks of a stack) were asked for."""
    last_map: int | None = None
    """The map behind which a body may end; None where its end is asked for."""
    carried: Mapping[str, Any] = field(default_factory=dict)
    """What the stage before this one handed on beside its tokens (`Features.extras`)."""
    last: int | None = None
    """How many of a text's last tokens the head is asked for; None for all."""
    record: dict[str, Any] | None = None
    """Where parts note what someone asked for (balance losses, scores, keys); None where nobody did."""
    memo: dict[Any, Any] | None = None
    """What one layer worked out and later layers of this forward need alike: rotary tables, masks."""
    memory: Tensor | None = None
    """(B, M, C) tokens to cross-attend to. No part of formery reads this or the next three yet; others' may."""
    condition: Tensor | None = None
    """(B, D) what the whole forward is conditioned on: a class, a time step, a style."""
    modality: Tensor | None = None
    """(B, L) modality or task number of each token."""
    graph: Any = None
    """Edges between tokens, for mixers over graphs."""

    def but(self, **changes: Any) -> Context:
        """The same context with some entries replaced."""
        return replace(self, **changes)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, worked out once a forward."""
        if self.memo is None or torch.compiler.is_compiling():  # exporters' sizes are symbols, which no key can hold
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


NOTHING = Context()
