"""A block of any number of sublayers."""

from __future__ import annotations

from typing import Any

from torch import nn

from ... import registry
from ...errors import BadSpec
from ...spec import Place, SchemeSpec, SublayerSpec
from .base import BaseBlock
from .spreading import spread_scheme


class Sequence(BaseBlock):
    """Mixers and channel mixers in the order given, along `scheme`."""

    EXAMPLES = ({"sublayers": [{"kind": "attention", "heads": 2}, "identity", "mlp"]},)

    def __init__(
        self, dim: int, *, sublayers: list[SublayerSpec], scheme: SchemeSpec = "pre", place: Place | None = None
    ) -> None:
        super().__init__()
        if not sublayers:
            raise BadSpec("a block has at least one sublayer")
        named = {f"sublayers.{i}": ("sublayer", spec) for i, spec in enumerate(sublayers)}
        self.wire(dim, named, scheme, place or Place("block"))

    def hang(self, name: str, part: nn.Module | None) -> None:
        group, _, index = name.partition(".")
        if not isinstance(getattr(self, "_modules", {}).get(group), nn.ModuleDict):
            self.add_module(group, nn.ModuleDict())
        members = self._modules[group]
        assert isinstance(members, nn.ModuleDict)
        if part is None:
            members.pop(index)
        else:
            members[index] = part

    def _sublayer(self, name: str) -> nn.Module | None:
        group, _, index = name.partition(".")
        members = self._modules.get(group)
        return members._modules.get(index) if isinstance(members, nn.ModuleDict) else None

    @classmethod
    def spread(cls, node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """`norm`, `scale`, `drop_path` are its scheme's; `mixer` and `channel` stand for all sublayers of that role but
        the bare ones, which encode positions."""
        if key not in ("mixer", "channel"):
            return spread_scheme(node, key, value)
        bare = node["scheme"].get("bare") or ()
        roles = [registry.role_of("sublayer", part["kind"]) for part in node["sublayers"]]
        return {f"sublayers.{i}": value for i, role in enumerate(roles) if role == key and i not in bare}
