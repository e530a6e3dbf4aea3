"""Stages of falling resolution and growing width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import mul
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from ..context import NOTHING, Context, State
from ..errors import BadSpec
from ..layout import MOST_WORDS, parse, ramp
from ..parts.heads.head import Features
from ..parts.several import Tokens, Widths, each, several
from ..spec import BlockSpec, BodySpec, ChannelSpec, MergeSpec, MixerSpec, Place, PositionSpec, SchemeSpec, build
from .blocks.spreading import spread_members
from .body import Body, Groups, joined
from .stack import Stack, behind, ramped

Depths = Annotated[list[Annotated[int, Field(ge=0, le=MOST_WORDS)]], Field(min_length=1)]
Dims = Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1)]


class Pyramid(Body):
    """Stages, each a body (usually a stack that begins with a merge); tap i is the output of stage i.

    Of tokens that are several tensors each has its maps: all stages of the first one, then all of the next.
    """

    EXAMPLES = (
        {"dims": [32, 48], "depths": [1, 1], "mixer": "pooling"},
        {
            "dims": [32, 48],
            "layouts": ["pooling", "attention pooling"],
            "blocks": {"attention": {"mixer": {"kind": "attention", "heads": 2}}},
        },
    )

    def __init__(
        self, dim: Widths, *, stages: Annotated[list[BodySpec], Field(min_length=1)], place: Place | None = None
    ) -> None:
        super().__init__()
        place = place or Place("body")
        grid, index = place.grid, place.index
        members = []
        for number, stage in enumerate(stages):
            here = place.at(f"stages.{number}", grid=grid, index=index, prefix=place.prefix + self.num_prefix)
            member = build("body", stage, dim, place=here)
            dim, grid, index = member.dim, member.grid, index + member.num_blocks()
            self.stride = each(mul, self.stride, member.stride)
            self.num_prefix = member.num_prefix
            members.append(member)
        self.stages = nn.ModuleList(members)
        self.dim, self.grid = dim, grid

    @classmethod
    def is_full(cls, given: Mapping[str, Any]) -> bool:
        """Whether these are the full options, every stage written out."""
        return "stages" in given

    @classmethod
    def shorthand(
        cls,
        *,
        dims: Dims,
        depths: Depths | None = None,
        layouts: list[str] | None = None,
        blocks: dict[str, BlockSpec] | None = None,
        mixer: MixerSpec | list[MixerSpec] | None = None,
        channel: ChannelSpec | None = "mlp",
        scheme: SchemeSpec | list[SchemeSpec] = "pre",
        merge: MergeSpec = "conv",
        positions: list[PositionSpec | None] | None = None,
        drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> dict[str, Any]:
        """Widths a stage, and either `depths` with one `mixer` (or one a stage), or `layouts`, one a stage.

        Between stages stands `merge`. `drop_path` rises evenly over all blocks.
        """
        if (depths is None) == (layouts is None):
            raise BadSpec("a pyramid has depths (with a mixer) or layouts: give one of them")
        if layouts is not None and mixer is not None:
            raise BadSpec("mixer goes with depths; in layouts the words name the mixers")
        if depths is not None and blocks is not None:
            raise BadSpec("blocks go with layouts, whose words name them; with depths give a mixer")
        num_stages = len(dims)
        lengths = [len(parse(layout).words()) for layout in layouts] if layouts is not None else list(depths or [])
        mixers, schemes = _one_each(mixer, num_stages, "mixer"), _one_each(scheme, num_stages, "scheme")
        places = _one_each(positions if positions is not None else None, num_stages, "positions")
        if len(lengths) != num_stages:
            raise BadSpec(f"{num_stages} dims need as many depths or layouts, got {len(lengths)}")
        total, before, stages = sum(lengths), 0, []
        for i, length in enumerate(lengths):
            short: dict[str, Any] = (
                {"layout": layouts[i], "blocks": blocks}
                if layouts is not None
                else {"depth": length, "mixer": mixers[i]}
            )
            stage = Stack.shorthand(
                **short, channel=channel, scheme=schemes[i], dim=dims[i], merge=merge if i else None, position=places[i]
            )
            stage["blocks"] = [
                ramped(block, ramp(drop_path, before + j, total)) for j, block in enumerate(stage["blocks"])
            ]
            before += length
            stages.append({"kind": "stack", **stage})
        return {"stages": stages}

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """What a stack spreads over its blocks, over all stages; a layout is cut where the stages end."""
        return spread_members(node["stages"], "stages", key, value)

    def forward(self, x: Tokens, ctx: Context = NOTHING, state: State | None = None) -> Features:
        maps: dict[int, Tensor] = {}
        places = self._maps() if ctx.taps else []
        inner = ctx.but(taps=(), last_map=None)
        for index, stage in enumerate(self.stages):
            features = stage(x, inner, None if state is None else state.under(f"stages.{index}"))
            x, inner = features.x, inner.but(carried=features.extras)
            if features.prefix:
                inner = behind(inner, features.prefix - inner.prefix, features.grid)
            for branch, tokens in enumerate(several(x) if places else ()):
                if (tap := places.index((branch, index))) in ctx.taps:
                    maps[tap] = tokens
            if ctx.last_map is not None and maps.keys() >= set(ctx.taps):
                break
        features.maps = maps
        features.branch_of = {tap: places[tap][0] for tap in maps} if isinstance(x, tuple) else {}
        return features

    def _maps(self) -> list[tuple[int, int]]:
        """(branch, stage) of each map: all of the first branch, then all of the next."""
        return sorted((b, i) for i, stage in enumerate(self.stages) for b, _ in enumerate(several(stage.dim)))

    def feature_info(self) -> list[dict[str, Any]]:
        strides: list[Any] = []
        for stage in self.stages:
            strides.append(each(mul, strides[-1] if strides else 1, stage.stride))
        infos = []
        for branch, i in self._maps():
            width, several_here = several(self.stages[i].dim)[branch], isinstance(self.stages[i].dim, tuple)
            info = {"num_chs": width, "reduction": several(strides[i])[branch], "module": f"stages.{i}"}
            infos.append(info | ({"branch": branch} if several_here else {}))
        return infos

    def groups(self) -> Groups:
        """Those of each stage in turn; what else a stage has goes with its first block.

        Of a first stage of branches, what stands before their blocks goes with the stem, as without stages.
        """
        stage = r"stages\.(\d+)"
        first = joined(self.stages[:1], r"stages\.0").first if isinstance(self.stages[0].dim, tuple) else None
        return Groups(first, (*joined(self.stages, stage).depths, (stage, (0,))), ((stage, ()),))


def _one_each(value: Any, num_stages: int, name: str) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [value] * num_stages
    if len(value) != num_stages:
        raise BadSpec(f"{name}: one for all stages or one for each of the {num_stages}, got {len(value)}")
    return list(value)
