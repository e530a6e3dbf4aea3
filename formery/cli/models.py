"""What a MODEL argument may be: found without torch, so that mistakes are answered at once, then opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BadFile, BadSpec, UnknownName
from ..files import CONFIG, read_json, saved_in
from .options import MODEL_HELP

if TYPE_CHECKING:
    from ..model import Model

Kind = Literal["spec", "saved", "published", "onnx"]
SPEC_SUFFIXES = (".yaml", ".yml", ".json")
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Subject:
    """What the text of a MODEL argument stands for."""

    text: str
    kind: Kind
    """`spec`: to be built; `saved`: formery's folder; `published`: one of transformers'; `onnx`: an exported model."""
    path: Path
    read: dict[str, Any] | None = None
    """The spec, where it was read from a file."""

    @property
    def spec(self) -> dict[str, Any] | None:
        """The spec of what is to be built. That of a published variant imports its system, and torch with it."""
        if self.kind != "spec" or self.read is not None:
            return self.read
        from .. import cards

        return cards.spec_of(self.text)


def find(text: str, *, onnx: bool = False) -> Subject:
    """What `text` stands for; exported models only where `onnx` says so. UnknownName, BadFile or BadSpec if nothing."""
    path = Path(text)
    if not text.strip():
        raise BadSpec(f"no model is named; give {_lowered(MODEL_HELP)}")
    if path.suffix.lower() == ".onnx":
        return _exported(text, path, onnx)
    if path.suffix.lower() in SPEC_SUFFIXES:
        return Subject(text, "spec", path, read_spec(text))
    if path.is_dir():
        folder = saved_in(path)
        if (folder / CONFIG).is_file():
            return _folder(text, folder)
    _check_name(text, path)
    return Subject(text, "spec", path)


def _exported(text: str, path: Path, allowed: bool) -> Subject:
    if not allowed:
        raise BadFile(f"{text} is an exported model; give {_lowered(MODEL_HELP)}")
    check_file(text)
    return Subject(text, "onnx", path)


def _folder(text: str, folder: Path) -> Subject:
    """A folder with a config: formery's own, or one of transformers'."""
    config = read_json(folder / CONFIG)
    if isinstance(config, dict) and config.get("library") == "formery":
        if not (folder / WEIGHTS).is_file():
            raise BadFile(f"{folder / WEIGHTS} does not exist; a saved model is {CONFIG} and {WEIGHTS}")
        return Subject(text, "saved", folder)
    from .. import cards

    try:
        cards.of_config(config)
    except UnknownName as error:
        raise BadFile(f"{folder / CONFIG} is neither formery's nor of a model that formery knows: {error}") from None
    return Subject(text, "published", folder)


def _check_name(text: str, path: Path) -> None:
    """UnknownName or BadFile unless `text` is the name of a published variant."""
    from .. import cards

    try:
        cards.canonical(text)
    except UnknownName as error:
        if path.is_dir():
            from ..training.started import how_to_go_on

            if (hint := how_to_go_on(path)) is not None:
                raise BadFile(f"{text} holds no model yet: its training was interrupted {hint}") from None
            raise BadFile(f"{text} holds no saved model: {CONFIG} and {WEIGHTS} are needed") from None
        if path.exists():
            raise BadFile(f"{text} is no model; give {_lowered(MODEL_HELP)}") from None
        if "/" in text or "\\" in text:
            raise BadFile(f"{text} does not exist; give {_lowered(MODEL_HELP)}") from None
        raise UnknownName(f"{error} (or give the folder of a saved model)") from None


def check_file(text: str) -> None:
    """BadFile unless `text` names a file."""
    if Path(text).is_dir():
        raise BadFile(f"{text} is a folder; give a file")
    if not Path(text).is_file():
        raise BadFile(f"{text} does not exist")


def read_mapping(text: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; BadFile or BadSpec says what is wrong with it."""
    from .. import formats

    check_file(text)
    try:
        content = Path(text).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadFile(f"{text} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise BadFile(f"cannot read {text}: {error.strerror or error}") from None
    try:
        found = formats.from_json(content) if text.lower().endswith(".json") else formats.from_yaml(content)
    except BadSpec as error:
        raise BadSpec(f"{text}: {error}") from None
    except RecursionError:
        raise BadSpec(f"{text} is nested too deeply to be a spec") from None
    if not isinstance(found, dict):
        holds = "nothing" if found is None else "a list" if isinstance(found, list) else "one value"
        raise BadSpec(f"{text} holds {holds}; a spec is a mapping with stem, body and head")
    return found


def is_recipe(mapping: dict[str, Any]) -> bool:
    """Whether the content of a file is a whole run rather than a model."""
    return "data" in mapping and "stem" not in mapping


def read_spec(text: str) -> dict[str, Any]:
    """The spec in a file, as far as it can be checked without torch."""
    found = read_mapping(text)
    if is_recipe(found):
        raise BadSpec(f"{text} is a recipe, no spec; 'formery train {text}' runs it")
    if found.get("library") == "formery" and "resolved" in found:
        raise BadSpec(f"{text} is the config of a saved model; give its folder")
    return found


def changes_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """What `--set` says, by dotted globs."""
    from ..spec import from_pairs

    return from_pairs(list(pairs or ()))


def check_overrides(subject: Subject, changes: dict[str, Any]) -> None:
    """BadSpec for overrides of a model that comes with its weights."""
    if changes and subject.kind != "spec":
        raise BadSpec(f"{subject.text} is built as it was saved; --set goes with names and spec files")


def open_model(subject: Subject, changes: dict[str, Any] | None = None) -> Model:
    """The model in evaluation mode: a saved one with its weights, one from a spec with its first ones."""
    check_overrides(subject, changes or {})
    if subject.kind == "saved":
        from ..model import Model

        return Model.from_pretrained(subject.path).eval()
    from ..create import create_model

    if subject.kind == "published":
        return create_model(f"{subject.path.resolve()}/").eval()
    spec = subject.spec
    assert spec is not None
    return create_model(spec, override=changes or None).eval()


def hollow_model(subject: Subject, changes: dict[str, Any] | None = None) -> Model:
    """The model on the meta device: its structure, in no memory."""
    check_overrides(subject, changes or {})
    if subject.kind == "published":
        from ..create import create_model
        from ..measure.inputs import without_values

        return without_values(create_model(f"{subject.path.resolve()}/")).eval()
    from .. import saving
    from ..create import model_spec
    from ..model import Model

    if (spec := subject.spec) is not None:
        resolved = model_spec(spec, override=changes or None)
        with saving.blank():
            return Model(resolved).eval()
    config = saving.read_config(subject.path)
    try:
        with saving.blank():
            model = Model(config["resolved"])
            saving.replay(model, config["plans"])
    except (BadSpec, UnknownName) as error:
        raise BadFile(f"{subject.path / CONFIG}: {error}") from None
    return model.eval()


def input_shape(model: Model, batch: int, size: int | None) -> tuple[int, ...]:
    """The shape of a batch: images, videos or series of the model's nominal size, or 128 tokens, unless `size` says
    another."""
    if model.modality in ("image", "video"):
        from ..measure.inputs import nominal_shape

        _, channels, *frames, height, width = nominal_shape(model)
        return (batch, channels, *frames, size or height, size or width)
    length = size or model.resolved["stem"].get("length") or 128
    return (batch, length) if model.stem.channels is None else (batch, length, model.stem.channels)


def _lowered(text: str) -> str:
    return f"{text[0].lower()}{text[1:].rstrip('.')}"
