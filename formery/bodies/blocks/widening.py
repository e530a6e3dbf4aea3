"""A block whose tokens go out wider than they came in (the Next Transformer Block, arXiv 2207.05501, section 3.3)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ...context import NOTHING, Context, State
from ...errors import BadSpec
from ...parts.dense import Dense
from ...parts.norms.norm import Norm
from ...spec import ChannelSpec, MixerSpec, NormSpec, Place, SchemeSpec, build
from .base import BaseBlock
from .spreading import spread_scheme


class Widening(BaseBlock):
    """`mixer` on the tokens as they come in; what comes out is projected to a narrow branch of its own, which `local`
    mixes; both side by side, `dim_out` channels, are the stream that `channel` closes. All three are residual branches
    along `scheme`.

    In Next-ViT three quarters of the channels come from attention, which catches what is smooth, and a quarter from
    convolution. `norm` stands behind the projection, which has no bias.
    """

    EXAMPLES = (
        {"dim_out": 48, "mixer": {"kind": "attention", "heads": 2}, "local": "identity"},
        {
            "dim_out": 40,
            "mixer": {"kind": "attention", "heads": 2},
            "local": {"kind": "depthwise_conv", "size": 3},
            "norm": "layer",
            "scheme": {"kind": "pre", "unnormed": [1], "drop_shares": [0.75, 0.25, 1.0]},
        },
    )
    neighbours = (("project", "project_norm"),)

    def __init__(
        self,
        dim: int,
        *,
        dim_out: Annotated[int, Field(gt=0)],
        mixer: MixerSpec,
        local: MixerSpec,
        channel: ChannelSpec = "mlp",
        norm: NormSpec | None = "batch",
        scheme: SchemeSpec = "pre",
        place: Place | None = None,
    ) -> None:
        super().__init__()
        place = place or Place("block")
        if dim_out <= dim:
            raise BadSpec(f"dim_out is more than the {dim} channels that come in, got {dim_out}")
        sublayers = {"mixer": ("mixer", mixer), "local": ("mixer", local), "channel": ("channel", channel)}
        self.wire(dim, sublayers, scheme, place, widths=(dim, dim_out - dim, dim_out))
        if not self.scheme.separable:
            raise BadSpec("a widening block needs a scheme whose sublayers are residual branches of their own: pre")
        self.project = Dense(dim, dim_out - dim, bias=False)
        self.project_norm: Norm | None = None
        if norm is not None:
            self.project_norm = build("norm", norm, dim_out - dim, place=place.at("norm"))

    def forward(self, stream: Any, ctx: Context = NOTHING, state: State | None = None) -> Any:
        x = self.scheme.finish(self.step(stream, 0, ctx, state))
        beside = self.step(self.scheme.start(self._projected(x, ctx)), 1, ctx, state)
        wide = torch.cat([x, self.scheme.finish(beside)], dim=-1)
        return self.step(self.scheme.start(wide), 2, ctx, state)

    def _projected(self, x: Tensor, ctx: Context) -> Tensor:
        y: Tensor = self.project(x)
        return y if self.project_norm is None else self.project_norm(y, ctx)

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """`norm` is the projection's; `scale` and `drop_path` of a block are its scheme's."""
        return spread_scheme(node, key, value)
