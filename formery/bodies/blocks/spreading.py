"""What an override of a block or body means for the parts inside it."""

from __future__ import annotations

from typing import Any

from ... import registry
from ...errors import BadSpec
from ...layout import parse

OF_SCHEME = ("norm", "scale", "drop_path")


def spread_scheme(node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The writes that set a scheme's option from the block around it."""
    return {f"scheme.{key}": value} if key in OF_SCHEME and key in node["scheme"] else {}


def spread_members(members: list[dict[str, Any]], option: str, key: str, value: Any) -> dict[str, Any]:
    """The writes that `spread` of each of a body's `members` asks for; a layout is cut where they end."""
    parts = [registry.find("body", member["kind"]) for member in members]
    values: list[Any] = [value] * len(members)
    if key in ("mixer", "channel") and isinstance(value, str) and len(words := parse(value).words()) > 1:
        lengths = [len(part.spread(member, key, None)) for part, member in zip(parts, members, strict=True)]
        if len(words) != sum(lengths):
            raise BadSpec(
                f"layout {value!r} has {len(words)} words for {sum(lengths)} blocks; give one, or one a block"
            )
        values = [" ".join(words[sum(lengths[:i]) : sum(lengths[: i + 1])]) for i in range(len(members))]
    writes: dict[str, Any] = {}
    for i, (part, member) in enumerate(zip(parts, members, strict=True)):
        if values[i] != "" and hasattr(part, "spread"):
            writes |= {f"{option}.{i}.{path}": v for path, v in part.spread(member, key, values[i]).items()}
    return writes


def spread_blocks(node: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The writes that set `mixer` or `channel` (a layout or one spec for all), or a scheme's option, of every block."""
    blocks = node["blocks"]
    if key in OF_SCHEME or key == "scheme":
        inner = "scheme" if key == "scheme" else f"scheme.{key}"
        return {f"blocks.{i}.{inner}": value for i in range(len(blocks))}
    if key not in ("mixer", "channel"):
        return {}
    values: list[Any] = [value] * len(blocks)
    if isinstance(value, str):
        words = parse(value).words()
        if len(words) not in (1, len(blocks)):
            raise BadSpec(f"layout {value!r} has {len(words)} words for {len(blocks)} blocks; give one, or one a block")
        values = words * len(blocks) if len(words) == 1 else words
    writes: dict[str, Any] = {}
    for i, (block, own) in enumerate(zip(blocks, values, strict=True)):
        inside = {key: own} if key in block else registry.find("block", block["kind"]).spread(block, key, own)
        writes |= {f"blocks.{i}.{path}": v for path, v in inside.items()}
    return writes
