"""What a classifier returns: scores, or scores and those that learned from a teacher."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def both(output: Any) -> tuple[Tensor, Tensor]:
    """(scores for the labels, scores for a teacher's), (B, classes) each; the same ones where there is one output."""
    if isinstance(output, Tensor):
        return output, output
    if hasattr(output, "scores") and hasattr(output, "distilled"):
        return output.scores, output.distilled
    first, second = output  # timm's models with a distillation token
    return first, second


def fused(output: Any) -> Tensor:
    """The scores that a prediction is made by: the mean of both (arXiv 2012.12877, section 4)."""
    first, second = both(output)
    return first if first is second else (first + second) / 2
