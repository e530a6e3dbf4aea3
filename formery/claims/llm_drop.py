"""Claims of LLM-Drop (arXiv 2406.15786), of which `formery.rewrites.drop` is made."""

from __future__ import annotations

import torch

from ..rewrites.checks import llm_drop
from ..spec import build
from .check import Measured, Progress, check
from .llm_drop_learning import attention_first, joint

__all__ = ["attention_first", "decoding", "identity", "joint", "llama_layer", "planted", "savings"]

LLAMA_2_7B = 4 * 4096**2 + 4096
"""Parameters of an attention layer and its norm."""


@check
def identity(seed: int, progress: Progress) -> Measured:
    """A mixer and a channel mixer whose writers are zero; float64."""
    found = llm_drop.identity()
    passed = found["change"] == 0 and found["dropped_are_the_zeros"] == 1 and abs(found["similarity"] - 1) <= 1e-12
    said = f"similarity 1 - {1 - found['similarity']:.1e}, outputs change by {found['change']:g}"
    return Measured(found, passed, said)


@check
def planted(seed: int, progress: Progress) -> Measured:
    """Four sublayers of twelve, drawn at random, five times over."""
    found = {str(seed + i): llm_drop.planted(seed + i) for i in range(5)}
    right = sum(one["planted"] == one["dropped"] for one in found.values())
    return Measured(found, right == len(found), f"all four found {right} times of {len(found)}")


@check
def savings(seed: int, progress: Progress) -> Measured:
    """State and parameters after one to four of six attention layers have gone."""
    found = {str(count): llm_drop.savings(count) for count in (1, 2, 4)}
    passed = all(
        one["state_before"] * (one["layers"] - one["dropped"]) == one["state_after"] * one["layers"]
        and one["parameters_before"] - one["parameters_after"] == one["parameters_of_the_dropped"]
        for one in found.values()
    )
    said = "; ".join(
        f"{n} of {one['layers']} gone: state {one['state_after'] / one['state_before']:.3f}, "
        f"{one['parameters_before'] - one['parameters_after']:,} parameters less"
        for n, one in found.items()
    )
    return Measured(found, passed, said)


@check
def llama_layer(seed: int, progress: Progress) -> Measured:
    """Attention layer and norm of Llama-2-7B, counted without values."""
    attention = {"kind": "attention", "heads": 32, "position": "rope", "bias": False, "out_bias": False}
    with torch.device("meta"):
        parts = build("mixer", attention, 4096), build("norm", "rms", 4096)
    total = sum(p.numel() for part in parts for p in part.parameters())
    return Measured({"parameters": total}, total == LLAMA_2_7B, f"{total:,} parameters", "67.1M and 4096 of the norm")


@check
def decoding(seed: int, progress: Progress) -> Measured:
    """Chunks and single tokens against the whole, after each kind of drop; float64."""
    found = llm_drop.decoding()
    said = ", ".join(f"{unit} {error:.1e}" for unit, error in found.items())
    return Measured(found, max(found.values()) <= 1e-10, f"largest differences: {said}")
