"""How kernels of several sizes share the channels of a token (CrossFormer, arXiv 2108.00154, section 3.1)."""

from __future__ import annotations

from ..errors import BadSpec


def shares(width: int, count: int, sizes: list[int], stride: int) -> list[int]:
    """Channels of the convolutions of rising `sizes`: each has half of what is left, the last two have the same.

    BadSpec where they cannot be halved so often, or a size does not stand around the stride's tokens.
    """
    if odd := [size for size in sizes if size < stride or (size - stride) % 2]:
        raise BadSpec(f"sizes: a kernel stands around {stride} pixels or tokens, an even number more; got {odd[0]}")
    if width % 2 ** (count - 1):
        raise BadSpec(f"{width} channels cannot be halved {count - 1} times; take another width or fewer sizes")
    return [width // 2 ** min(i + 1, count - 1) for i in range(count)]
