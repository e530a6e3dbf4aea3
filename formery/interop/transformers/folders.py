"""Folders that transformers' Auto classes open: our model, a tokenizer beside it, and how to generate."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BadFile, CannotExport
from ...files import atomic, read_json, write_json
from ...tasks.language import NUM_BYTES, over_bytes
from .told import TOKENS, kept

if TYPE_CHECKING:
    from ...model import Model

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
    "generation_config.json",
)
"""What a tokenizer, its chat template and the settings of generation are kept in."""
END = 0
"""The byte that ends a text, as no text has it."""


def save_for_auto(model: Model, folder: str | Path, *, tokenizer: str | Path | None = None) -> None:
    """Write a causal model so that `AutoModelForCausalLM` and `AutoTokenizer` open the folder.

    The model is saved as `save_pretrained` does, and opens here as well. `tokenizer` is a folder whose tokenizer, chat
    template and generation settings are copied; without one a model over bytes gets a tokenizer of bytes, whose byte 0
    begins, ends and pads texts, and other models none. CannotExport for a model that does not predict tokens.
    """
    folder = Path(folder)
    if not model.head.causal:
        raise CannotExport(f"{model.name} predicts no next token, so transformers cannot generate with it")
    found = None if tokenizer is None else tokenizer_files(tokenizer)
    model.save_pretrained(folder)
    known = kept(model.extra)
    add_settings(folder, {key: known[key] for key in TOKENS if known[key] is not None})
    if found is not None:
        copy(found, folder)
    elif over_bytes(model):
        write_byte_tokenizer(folder)


def tokenizer_files(folder: str | Path) -> list[Path]:
    """The files of the tokenizer in a folder; BadFile where there is none."""
    found = [path for name in TOKENIZER_FILES if (path := Path(folder) / name).exists()]
    if not found:
        raise BadFile(f"{folder} holds no tokenizer: none of {', '.join(TOKENIZER_FILES[:2])} or their like")
    return found


def copy(files: list[Path], folder: Path) -> None:
    """Put copies of files and folders into a folder, in the place of what had their names."""
    for path in files:
        target = folder / path.name
        if target.resolve() == path.resolve():
            continue
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            with atomic(target) as temporary:
                shutil.copyfile(path, temporary)


def write_byte_tokenizer(folder: Path) -> None:
    """`tokenizer.json` and what belongs to it, for tokens that are the bytes of UTF-8 texts."""
    letters = byte_letters()
    end = letters[END] = chr(END)  # itself, which a text may hold; the letter that stands for it is one of texts too
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": END,
                "content": end,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "vocab": {letter: byte for byte, letter in enumerate(letters)}, "merges": []},
    }
    write_json(folder / "tokenizer.json", content)
    special = {f"{role}_token": end for role in ("bos", "eos", "pad")}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", settings | special)
    ids = {f"{role}_token_id": END for role in ("bos", "eos", "pad")}
    add_settings(folder, ids)


def add_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Say in `generation_config.json` how to generate, beside what it says already."""
    path = folder / "generation_config.json"
    if settings:
        write_json(path, (read_json(path) if path.is_file() else {}) | settings)


def byte_letters() -> list[str]:
    """The letter that byte-level tokenizers write for each byte: itself where it is printable, else one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    return [chr(byte if byte in printable else next(others)) for byte in range(NUM_BYTES)]
