"""Whether what is asked for fits into this machine: said before the machine is brought to its knees."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import BadSpec

if TYPE_CHECKING:
    from ..model import Model


def physical() -> int | None:
    """Bytes of memory this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def check_room(shape: Sequence[int], bytes_each: int = 4) -> None:
    """BadSpec where one batch of inputs alone is more than the machine's memory."""
    needed, there = bytes_each * math.prod(shape), physical()
    if there is not None and needed > there:
        size = "x".join(map(str, shape))
        raise BadSpec(
            f"inputs of {size} take {_gib(needed)}, this machine has {_gib(there)}; take a smaller batch or size"
        )


def check_streams(model: Model, lengths: Sequence[int], batch: int) -> None:
    """BadSpec where the state of streams as long as these is more than the machine's memory."""
    from ..measure.streams import state_bytes

    there = physical()
    for length in lengths:
        check_room((batch, length), 8)
        needed = state_bytes(model, length, batch)
        if there is not None and needed > there:
            raise BadSpec(
                f"a context of {length} takes {_gib(needed)}, this machine has {_gib(there)}; take shorter ones"
            )


def _gib(number: int) -> str:
    return f"{number / 2**30:,.1f} GiB"
