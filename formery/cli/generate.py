"""`formery generate`: a language model goes on from a prompt."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from .models import find, open_model
from .options import LARGEST_SEED, finite
from .output import emit

if TYPE_CHECKING:
    from ..runtime.generate import Generated

MOST_NEW = 1_000_000


class Dtype(StrEnum):
    """What a model may compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Weights(StrEnum):
    """How dense layers read their weights."""

    plain = "plain"
    packed = "packed"
    int8 = "int8"


def command(
    model: str = typer.Argument(help="The folder of a saved model or of a run, or one of transformers."),
    prompt: list[str] = typer.Option(
        ..., "--prompt", "-p", metavar="TEXT", help="What to go on from; '-' reads it from stdin. May be given often."
    ),
    max_new_tokens: int = typer.Option(128, min=1, max=MOST_NEW, help="At most so many new tokens."),
    temperature: float = typer.Option(
        0.0, min=0.0, callback=finite, help="0 takes the likeliest token; 1 draws by the model's own probabilities."
    ),
    top_k: int | None = typer.Option(None, min=1, help="Draw from so many of the likeliest tokens."),
    top_p: float | None = typer.Option(
        None, min=0.0, max=1.0, help="Draw from the fewest of the likeliest tokens that reach this probability."
    ),
    min_p: float | None = typer.Option(
        None, min=0.0, max=1.0, help="Draw from tokens at least this times as likely as the likeliest."
    ),
    stop: list[str] = typer.Option(None, "--stop", metavar="TEXT", help="End before this text. May be given often."),
    seed: int = typer.Option(0, min=0, max=LARGEST_SEED, help="Prompt number i draws by seed + i."),
    chunk: int | None = typer.Option(
        None, min=1, help="Tokens of a prompt that are read at a time; fewer take less memory."
    ),
    dtype: Dtype | None = typer.Option(None, help="What to compute in; as the model is saved unless given."),
    weights: Weights = typer.Option(
        Weights.plain,
        help="Keep a copy of the weights: packed, as the processor reads them fastest (same values to rounding), "
        "or int8, a fraction of the memory to read for each token (other values, a little).",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON with the tokens and why each text is over."),
) -> None:
    """Go on from a prompt, and print the new text as it comes.

    Several prompts stand in one batch, and their texts are printed when all are over, a line of '---' between them.
    Example: [bold]formery generate runs/pydoc --prompt "The list " --temperature 0.8 --seed 1[/bold]
    """
    from ..errors import BadFile, BadSpec

    if prompt.count("-") > 1:
        raise BadSpec("stdin can be read once; give '--prompt -' once")
    subject = find(model)
    if subject.kind == "spec":
        raise BadFile(f"{model} has learned nothing yet; give the folder of a saved model")
    prompts = [_read() if text == "-" else text for text in prompt]
    opened = open_model(subject)
    if opened.modality != "text" or not opened.head.causal:
        raise BadFile(f"{model} predicts no text; give the folder of a language model")

    import torch

    from ..acceleration import accelerate
    from ..runtime.generate import Options, generate, stream, tokenizer_of

    if dtype is not None:
        opened.to(getattr(torch, dtype.value))
    if weights is not Weights.plain:
        accelerate(opened, pack=weights is Weights.packed, int8=weights is Weights.int8)
    tokenizer = tokenizer_of(opened, subject.path)
    options: Options = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "stop": stop or (),
        "seed": seed,
        "tokenizer": tokenizer,
    }
    if chunk is not None:
        options["chunk"] = chunk
    if as_json or len(prompts) > 1:
        done = generate(opened, prompts, **options)
        _show(prompts, done, as_json=as_json)
        return
    for piece in stream(opened, prompts, **options):
        if piece.text:
            _write(piece.text)
    _write("\n")


def _read() -> str:
    """All of stdin; bytes that are no text stay what they are."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def _show(prompts: list[str], done: list[Generated], *, as_json: bool) -> None:
    if as_json:
        emit(
            [
                {
                    "prompt": _plain(text),
                    "text": one.text,
                    "finish": one.finish,
                    "prompt_tokens": len(one.prompt),
                    "tokens": one.tokens,
                }
                for text, one in zip(prompts, done, strict=True)
            ]
        )
        return
    _write("\n---\n".join(one.text for one in done) + "\n")


def _plain(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _write(text: str) -> None:
    """At once; what the terminal has no letters for is shown as '?'."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
