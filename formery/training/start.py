"""Where a training starts: fresh weights whose scale fits the width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..create import create_model
from ..errors import BadSpec

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


def check_overruled(changes: Mapping[str, Any], data: Any) -> None:
    """BadSpec where changes of a spec say what the data decide, and something else than they do."""
    decided = {"head.num_classes": "num_classes", "stem.in_chans": "in_chans", "stem.img_size": "image_size"}
    for path, name in decided.items():
        asked, found = changes.get(path), getattr(data, name, None)
        if asked is None or found is None or _pair(asked) == _pair(found):
            continue
        remedy = "leave it out" if name == "num_classes" else f"give --set data.{name}={asked} instead"
        raise BadSpec(f"{path}={asked} is overruled by {data.name}, which has {name} {found}; {remedy}")


def _pair(size: Any) -> Any:
    return (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else size


@contextmanager
def sized_by(data: Any) -> Iterator[None]:
    """A model that cannot be built for the size of these images is refused with what would change the size."""
    try:
        yield
    except BadSpec as error:
        if "img_size" not in str(error) or not hasattr(data, "image_size"):
            raise
        raise BadSpec(
            f"{error}: the images of {data.name} have that size; give --set data.image_size=... to resize them"
        ) from None
