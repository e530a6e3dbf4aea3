"""Texts to tokens and back: bytes, or the `tokenizer.json` of a folder."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...errors import BadFile, BadSpec, CannotRun
from ...extras import need
from ...files import read_json
from ...model import Model
from ...tasks.language import over_bytes

FILE = "tokenizer.json"
LONGEST_LETTER = 4
"""Bytes of the longest UTF-8 letter, so tokens that may be needed until one is whole."""


class Unfolding(Protocol):
    """Tokens of one text, one by one, to the letters that they complete."""

    def add(self, token: int) -> str: ...

    def end(self) -> str: ...


class Tokenizer(Protocol):
    """What generation needs of a tokenizer."""

    end: frozenset[int]
    """Tokens behind which a text is over."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def unfolding(self, prompt: Sequence[int]) -> Unfolding:
        """For the tokens that follow this prompt."""
        ...


class Bytes:
    """Each byte of the UTF-8 text is a token; nothing ends a text."""

    end: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogateescape"))

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def unfolding(self, prompt: Sequence[int]) -> Unfolding:
        return _ByteText()


class _ByteText:
    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        return self.decoder.decode(bytes([token]))

    def end(self) -> str:
        return self.decoder.decode(b"", final=True)


class FileTokenizer:
    """The tokenizer of a folder with a `tokenizer.json`, by the tokenizers library (extra `hf`).

    `end` are the tokens that `generation_config.json`, `config.json` or `tokenizer_config.json` call eos.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder) / FILE
        if not path.is_file():
            raise BadFile(f"{path} does not exist")
        library = need("tokenizers", "hf")
        try:
            self.tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for whatever it cannot read
            raise BadFile(f"{path} is no tokenizer ({str(error)[:120]}); it is damaged") from None
        self.end = frozenset(self._end(Path(folder)))

    def _end(self, folder: Path) -> list[int]:
        for name in ("generation_config.json", "config.json"):
            given = _entry(folder / name, "eos_token_id")
            if given is not None:
                return [int(token) for token in (given if isinstance(given, list) else [given])]
        text = _entry(folder / "tokenizer_config.json", "eos_token")
        text = text.get("content") if isinstance(text, Mapping) else text
        found = self.tokenizer.token_to_id(text) if isinstance(text, str) else None
        return [] if found is None else [int(found)]

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens)))

    def unfolding(self, prompt: Sequence[int]) -> Unfolding:
        return _TokenText(self, list(prompt)[-LONGEST_LETTER:])


class _TokenText:
    """What tokens say depends on the ones before them (spaces, letters of several tokens), so a few are kept."""

    def __init__(self, tokenizer: FileTokenizer, before: list[int]) -> None:
        self.tokenizer, self.tokens, self.said = tokenizer, before, len(before)

    def add(self, token: int) -> str:
        self.tokens.append(token)
        return self._new(len(self.tokens) - self.said < LONGEST_LETTER)

    def end(self) -> str:
        return self._new(False)

    def _new(self, waits: bool) -> str:
        """The text of the tokens that were not said yet, unless it ends amid a letter and `waits`."""
        before = self.tokenizer.decode(self.tokens[: self.said])
        whole = self.tokenizer.decode(self.tokens)
        if waits and whole.endswith("\ufffd"):
            return ""
        self.tokens = self.tokens[self.said :] or self.tokens
        self.said = len(self.tokens)
        return whole[len(before) :]


def _entry(path: Path, key: str) -> Any:
    if not path.is_file():
        return None
    content = read_json(path)
    return content.get(key) if isinstance(content, dict) else None


def open_tokenizer(folder: str | Path) -> Tokenizer | None:
    """The tokenizer saved in a folder; None where there is none."""
    return FileTokenizer(folder) if (Path(folder) / FILE).is_file() else None


def tokenizer_of(model: Model, folder: str | Path | None = None) -> Tokenizer:
    """The tokenizer that goes with a model: that of its folder, else bytes, where it was made for them.

    CannotRun where neither is known; BadSpec where the tokenizer has tokens that the model does not know.
    """
    found = None if folder is None else open_tokenizer(folder)
    vocab = model.num_classes
    if found is not None:
        assert isinstance(found, FileTokenizer)
        if (size := found.tokenizer.get_vocab_size()) > vocab:
            raise BadSpec(f"the tokenizer of {folder} has {size} tokens, {model.name} knows {vocab}")
        return found
    if over_bytes(model):
        return Bytes()
    where = f"{folder} has no {FILE}" if folder is not None else "no folder with its tokenizer is given"
    raise CannotRun(f"{model.name} has {vocab} tokens, and {where}; give prompts as token numbers, or the tokenizer")
