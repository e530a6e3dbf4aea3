"""The smallest image model of each family: variants of one system whose names begin with one word."""

from __future__ import annotations

from formery import cards


def families() -> list[str]:
    """`swin_tiny`, `swinv2_tiny_w8`, `swinmlp_tiny_c24`, ... of a system `swin`."""
    smallest: dict[tuple[str, str], str] = {}
    for name, card in cards.variants().items():
        if "image" in card.modalities_of(name):
            key = card.name, name.partition("_")[0]
            other = smallest.get(key, name)
            smallest[key] = min(other, name, key=lambda v: card.variants[v]["params"])
    return sorted(smallest.values())
