"""Widths that options give, or leave to be worked out."""

from __future__ import annotations

from ..errors import BadSpec


def positive(name: str, value: int) -> int:
    """`value`, or BadSpec if it is below 1."""
    if value < 1:
        raise BadSpec(f"{name} is at least 1, got {value}")
    return value


def shared_width(name: str, given: int | None, width: int, heads: int) -> int:
    """Channels a head: as given, else an equal share of `width`; BadSpec where there is none."""
    if heads < 1 or (given is not None and given < 1):
        raise BadSpec(f"heads and {name} are at least 1, got {heads} and {given}")
    if given is None and width % heads:
        raise BadSpec(f"heads ({heads}) does not divide {width}; choose a divisor or give {name}")
    return given or width // heads
