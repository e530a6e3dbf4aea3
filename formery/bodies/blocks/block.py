"""The usual block: a token mixer, a channel mixer (MetaFormer, arXiv 2111.11418, equations 1 and 2)."""

from __future__ import annotations

from typing import Any

from ...errors import BadSpec
from ...spec import MixerSpec, Place, SchemeSpec, SublayerSpec
from .base import BaseBlock
from .spreading import spread_scheme


class Block(BaseBlock):
    """`mixer`, then `channel`, along `scheme`; either may be left out (null), as in one-sublayer blocks.

    `channel` is a channel mixer, or a mixer that stands for one: a feed-forward network with a convolution inside.
    """

    EXAMPLES = (
        {"mixer": {"kind": "attention", "heads": 2}},
        {"mixer": {"kind": "attention", "heads": 2}, "channel": None, "scheme": "reordered"},
        {"mixer": None},
        {"mixer": {"kind": "attention", "heads": 2}, "channel": "identity"},
    )

    def __init__(
        self,
        dim: int,
        *,
        mixer: MixerSpec | None,
        channel: SublayerSpec | None = "mlp",
        scheme: SchemeSpec = "pre",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        sublayers = {"mixer": ("mixer", mixer), "channel": ("sublayer", channel)}
        present = {name: entry for name, entry in sublayers.items() if entry[1] is not None}
        if not present:
            raise BadSpec("a block has a mixer, a channel mixer or both; this one has neither")
        self.wire(dim, present, scheme, place or Place("block"))

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """`norm`, `scale`, `drop_path` of a block are its scheme's."""
        return spread_scheme(node, key, value)
