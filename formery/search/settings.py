"""What a user asks of `fit`, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BadSpec


@dataclass(frozen=True)
class Settings:
    """Bounds and budget. Two fits with equal settings and data on one machine give the same model, unless `minutes` or
    `max_latency` make them depend on the clock; a resumed fit repeats what was measured before."""

    task: str | None = None
    max_latency: float | None = None
    """Milliseconds for one item at batch 1, eager, fp32."""
    max_params: int | None = None
    max_drop: float = 0.5
    """Points of the validation score that shrinking, and int8, may cost in all."""
    minutes: float | None = None
    """Time to spend, roughly; unless given, steps follow from the amount of data."""
    effort: float = 1.0
    """Multiplies the number of steps where no minutes are given."""
    seed: int = 0
    image_size: int | None = None

    def __post_init__(self) -> None:
        checks: list[tuple[str, float | None, float]] = [
            ("max-latency", self.max_latency, 0), ("max-params", self.max_params, 0), ("minutes", self.minutes, 0),
            ("effort", self.effort, 0),
        ]  # fmt: skip
        for name, value, least in checks:
            if value is not None and not value > least:
                raise BadSpec(f"{name} is above {least}, got {value:g}")
        if not self.max_drop >= 0:
            raise BadSpec(f"max-drop is at least 0 points, got {self.max_drop:g}")
        if self.seed < 0:
            raise BadSpec(f"seed is at least 0, got {self.seed}")

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)
