"""Facts of the maps that a model gives, as timm's users read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class FeatureInfo(list[dict[str, Any]]):
    """Facts of each map: `num_chs`, `reduction`, `module`; methods as timm's."""

    def __init__(self, maps: list[dict[str, Any]], out_indices: Sequence[int] = ()) -> None:
        super().__init__(maps)
        self.out_indices = tuple(out_indices) or tuple(range(len(maps)))

    def _pick(self, key: str, idx: int | Sequence[int] | None) -> Any:
        if isinstance(idx, int):
            return self[idx][key]
        return [self[i][key] for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Widths of the maps."""
        return self._pick("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Strides of the maps, in input steps; of a video along time, height and width."""
        return self._pick("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Dotted paths of the modules whose outputs they are."""
        return self._pick("module", idx)

    def get_dicts(self, keys: Sequence[str] | None = None, idx: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """The facts of the chosen maps."""
        chosen = [self[i] for i in (self.out_indices if idx is None else idx)]
        return [d if keys is None else {k: d[k] for k in keys} for d in chosen]
