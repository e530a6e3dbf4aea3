"""What a model carries along for those who use it (classes, preprocessing, task), checked before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import BadFile

Side = Annotated[int, Field(gt=0, le=1 << 16)]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Preprocess(_Facts):
    """How an image file becomes the model's input; see `formery.data.decode`."""

    mean: list[float] = Field(min_length=1)
    std: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    size: list[Side] = Field(min_length=2, max_length=2)
    channels: Literal[1, 3]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    fit: Literal["squash", "crop"]


class ImageFacts(_Facts):
    """Of an image classifier."""

    classes: list[str] = Field(min_length=1)
    preprocess: Preprocess


class LanguageTask(_Facts):
    """Of a language model's task: the window that it has learned to use."""

    kind: Literal["language"] = "language"
    length: int = Field(default=256, gt=0)


class TextFacts(_Facts):
    """Of a language model over bytes."""

    tokens: Literal["bytes"]
    task: LanguageTask = LanguageTask()


F = TypeVar("F", bound=_Facts)


def kind_of(extra: Mapping[str, Any]) -> str:
    """The task that a model was saved for: `classify`, `language`, or another's name; BadFile where it is not said."""
    task = extra.get("task")
    kind = task.get("kind") if isinstance(task, Mapping) else None
    if isinstance(kind, str):
        return kind
    if "preprocess" in extra or "classes" in extra:
        return "classify"
    if "tokens" in extra:
        return "language"
    raise BadFile(
        "this model does not say what it was trained for; save it with extra={'classes': ..., 'preprocess': ...}, "
        "as training and fit do"
    )


def read(kind: type[F], extra: Mapping[str, Any]) -> F:
    """The facts of this kind; BadFile names what is missing or damaged."""
    try:
        return kind.model_validate(dict(extra))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = "is missing" if first["type"] == "missing" else f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise BadFile(f"what the model says of itself is damaged or incomplete: {place} {said}") from None
