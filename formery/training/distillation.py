"""How a model learns from a teacher, as plain data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Distillation(BaseModel):
    """Learning from a teacher's scores beside the labels (arXiv 1503.02531; arXiv 2012.12877, equations 2 and 3)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    teacher: str
    """The folder of a saved model or a run, or a name of formery's or timm's."""
    weights: str | None = None
    """Where a named teacher's weights are: a file, a folder, or `pretrained` for those that timm downloads."""
    form: Literal["soft", "hard"] = "soft"
    """`soft`: the divergence from the teacher's probabilities; `hard`: its likeliest class as a label."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """The teacher's share of the loss."""
    temperature: float = Field(default=3.0, gt=0)
    """By which both scores are divided in the soft form."""
