"""Titans (arXiv 2501.00663) and Atlas (arXiv 2505.23735): blocks whose mixer trains a memory while it reads.

Nobody has published code or weights of these models: what stands around the memory (SwiGLU, pre-norm with RMS, a gate
at the mixer's output) and all sizes are of here, as the card says. Of Titans this is the memory alone (LMM), without
attention beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...weights import Dialect, Rule

WINDOW, CHUNK = 4, 64
DEEP: dict[str, Any] = {"head_dim": 32, "layers": 2}
"""Keys as wide as values, so that the memory adds its input."""
FEATURES: dict[str, Any] = {"head_dim": 16, "value_dim": 32, "layers": 2, "hidden": 16}
"""Keys narrow enough for their monomials."""
MEMORIES: dict[str, dict[str, Any]] = {
    "titans_lmm": {**DEEP, "momentum": True},
    "omeganet": {**FEATURES, "feature": "polynomial", "window": WINDOW},
    "atlas": {**FEATURES, "feature": "polynomial", "window": WINDOW, "momentum": True, "orthogonal": True},
    "dla": {**DEEP, "objective": "dot"},
    "swla": {"head_dim": 32, "objective": "dot", "window": WINDOW},
    "deep_transformer": {**FEATURES, "feature": "exponential", "objective": "dot"},
    "dot": {**FEATURES, "feature": "exponential", "window": WINDOW},
}
"""Options of the mixer by the model's name; DLA, SWLA, Deep Transformer and Dot are DeepTransformers (section 4)."""


def variant(name: str) -> dict[str, Any]:
    """The spec of a variant, over bytes."""
    return spec(dim=128, depth=4, vocab=256, heads=4, memory=MEMORIES[name.removesuffix("_tiny")])


def spec(*, dim: int, depth: int, vocab: int, heads: int, memory: Mapping[str, Any]) -> dict[str, Any]:
    """A model of any size; `memory` are options of the mixer, one of `MEMORIES` or others."""
    return {
        "stem": {"kind": "tokens", "dim": dim, "vocab": vocab},
        "body": {
            "kind": "stack",
            "depth": depth,
            "mixer": {"kind": "test_time_memory", "heads": heads, "chunk": CHUNK, **memory},
            "channel": "swiglu",
            "scheme": {"kind": "pre", "norm": "rms"},
        },
        "head": {"kind": "next_token", "norm": "rms"},
    }


def dialects(resolved: Mapping[str, Any]) -> list[Dialect]:
    """Our own names: there are no others."""
    return [Dialect("formery", tuple(Rule(part, part) for part in ("stem", "body", "head")))]
