"""Where a training starts: fresh weights whose scale fits the width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..create import create_model

if TYPE_CHECKING:
    from ..model import Model

Init = float | Literal["fan_in"] | None


def fresh_model(spec: Mapping[str, Any], *, seed: int = 0, init: Init = "fan_in") -> Model:
    """A model with weights drawn from `seed`; the caller's random state is left alone.

    `init` is the deviation of linears and convolutions: a number, or for each what keeps the scale of its input,
    1/sqrt(number of inputs); None leaves the model's own. The usual 0.02 suits widths of a thousand and more; on small
    models it costs hundreds of steps.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = create_model(spec)
        if init is not None:
            model.init_weights(None if init == "fan_in" else init)
    return model
