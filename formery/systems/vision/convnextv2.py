"""ConvNeXt V2 (arXiv 2301.00808): a global response norm in every MLP, and no layer scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule
from .. import convnext_pyramid as common

SIZES = common.SIZES | {"huge": (352, [3, 3, 27, 3])}
"""First width and depths: appendix A; small is timm's own."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant."""
    first, depths = SIZES[name.rpartition("_")[2]]
    return common.pyramid(common.widths(first), depths, channel="grn_mlp") | {"head": common.head()}


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """The authors' names, timm's and transformers'."""
    return [
        common.authors({}, *_grn("stages.{i}.{j}.grn", "gamma", "beta")),
        common.timm(resolved, {"channel.grn": "mlp.grn"}),
        common.transformers("convnextv2", {}, *_grn("convnextv2.encoder.stages.{i}.layers.{j}.grn", "weight", "bias")),
    ]


def _grn(theirs: str, weight: str, bias: str) -> tuple[Rule, ...]:
    """The global response norm where its tensors have the shape of a map."""
    ours = f"{common.BLOCK}.channel.grn"
    return tuple(
        Rule(f"{ours}.{name}", f"{theirs}.{their}", ones=(0, 1, 2))
        for name, their in (("weight", weight), ("bias", bias))
    )
