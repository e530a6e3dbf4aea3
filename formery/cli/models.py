"""What a MODEL argument may be, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..model import Model

MODEL_HELP = "A name ('formery list'), the folder of a saved model, or a spec in a .yaml or .json file."
SET = typer.Option(None, "--set", metavar="PATH=VALUE", help="Replace a node of the spec; may be given often.")


def read_spec(text: str) -> dict[str, Any]:
    """The spec of a name or file, checked as far as names and files go, without torch."""
    from .. import cards, formats
    from ..errors import BadFile, BadSpec, UnknownName

    path = Path(text)
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        if not path.is_file():
            raise BadFile(f"{text} does not exist")
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(f"cannot read {text}: {error}") from None
        spec = formats.from_json(content) if path.suffix.lower() == ".json" else formats.from_yaml(content)
        if not isinstance(spec, dict):
            raise BadSpec(f"{text} holds no spec: a mapping with stem, body and head")
        return spec
    if "/" in text and not path.exists() and not _known(text):
        raise BadFile(f"{text} does not exist; give {MODEL_HELP[0].lower()}{MODEL_HELP[1:-1]}")
    try:
        return cards.spec_of(text)
    except UnknownName as error:
        if path.exists():
            raise BadFile(f"{text} is neither the folder of a saved model nor a .yaml or .json spec") from None
        raise UnknownName(f"{error} (or give the folder of a saved model)") from None


def _known(text: str) -> bool:
    from .. import cards

    return text in cards.aliases()


def is_saved(text: str) -> bool:
    """Whether the text names the folder of a saved model."""
    return (Path(text) / "config.json").is_file()


def open_model(text: str, overrides: list[str] | None = None, **options: Any) -> Model:
    """The model a MODEL argument names, with overrides as `PATH=VALUE`; a saved one with its weights."""
    from ..errors import BadFile, BadSpec
    from ..spec import from_pairs

    changes = from_pairs(overrides or [])
    if is_saved(text):
        from ..model import Model

        if changes:
            raise BadSpec("a saved model is built as it was saved; --set goes with names and spec files")
        return Model.from_pretrained(text)
    if Path(text).is_dir():
        raise BadFile(f"{text} holds no saved model: config.json and model.safetensors are needed")
    spec = read_spec(text)
    from ..create import create_model

    return create_model(spec, override=changes or None, **options)
