"""How a model is trained, as plain data: everything that decides the numbers, nothing that does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import BadSpec
from ..registry import nearest
from .distillation import Distillation


class TrainConfig(BaseModel):
    """Options of `train`. Two trainings with equal configs, models, data and tasks give equal results on one machine.

    What is left open (`warmup`, `eval_every`) is filled in from `steps`, so that the resolved config says everything.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(gt=0)
    """Steps of the optimizer; the schedule ends here."""
    batch_size: int = Field(default=64, gt=0)
    """Items an optimizer step sees, over all pieces and devices."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest rate, reached after the warm-up."""
    warmup: int | None = Field(default=None, ge=0)
    """Steps over which the rate rises evenly; a twentieth of `steps` unless given."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    final_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of the highest rate that is left at the end of the schedule."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of matrices and kernels; vectors and what the model names in `no_weight_decay` are left alone."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW's two averages."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """What the rate of each layer is of the one above it (arXiv 2106.08254); null: all learn alike."""
    head_only: int = Field(default=0, ge=0)
    """Steps at the beginning in which only the head learns, for fresh heads on trained bodies."""
    distill: Distillation | None = None
    """A teacher, and how much is learned from it."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """The greatest norm of the gradient over all parameters; null: any."""
    precision: Literal["32", "bf16"] = "32"
    """float32 throughout, or products in bfloat16 with weights and their updates in float32."""
    accumulate: int = Field(default=1, gt=0)
    """Pieces in which a batch goes through the model, for less memory; the gradient is that of the whole."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an average of the weights, which then is what is judged and kept."""
    eval_every: int | None = Field(default=None, gt=0)
    """Steps between judgements on the validation part; a twentieth of `steps` unless given."""
    patience: int | None = Field(default=None, gt=0)
    """Judgements without a better score after which training stops; null: it goes on to the end."""
    seed: int = Field(default=0, ge=0)
    """Of dropout and stochastic depth; order and augmentation follow the data's seed."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = dict(given)
        if isinstance(known.get("betas"), list):
            known["betas"] = tuple(known["betas"])
        for name, field in cls.model_fields.items():  # 1 is as good as 1.0 where a float is wanted
            if (
                isinstance(known.get(name), int)
                and not isinstance(known[name], bool)
                and "float" in str(field.annotation)
            ):
                known[name] = float(known[name])
        return known

    @model_validator(mode="after")
    def _whole(self) -> Self:
        twentieth = max(1, self.steps // 20)
        if self.warmup is None:
            object.__setattr__(self, "warmup", twentieth if self.steps > 1 else 0)
        if self.eval_every is None:
            object.__setattr__(self, "eval_every", twentieth)
        if self.warmup is not None and self.warmup > self.steps:
            raise ValueError(f"warmup is at most steps ({self.steps})")
        if self.head_only >= self.steps > 0 and self.head_only:
            raise ValueError(f"head_only is less than steps ({self.steps})")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate is at most batch_size ({self.batch_size})")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("betas lie in 0 <= beta < 1")
        return self

    @classmethod
    def of(cls, given: TrainConfig | Mapping[str, Any] | None = None, **options: Any) -> TrainConfig:
        """A config from plain data and options that take precedence; BadSpec names the option and what fits."""
        before = given.model_dump(exclude_unset=True) if isinstance(given, TrainConfig) else dict(given or {})
        merged = before | options
        for name in merged:
            if name not in cls.model_fields:
                raise BadSpec(f"training has no option {name!r}; {nearest(name, cls.model_fields)}")
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            if first["type"] == "missing":
                raise BadSpec(f"training needs {place}; say how many") from None
            if not place:
                raise BadSpec(f"training: {message}") from None
            raise BadSpec(f"training.{place}: {message[0].lower()}{message[1:]}, got {first['input']!r}") from None

    def plain(self) -> dict[str, Any]:
        """Every option, as JSON has it."""
        return self.model_dump(mode="json")
