from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Answer

Ask = Callable[..., Answer]
PROMPT = ["--prompt", "the quick "]


@pytest.mark.usefixtures("shop")
def test_what_comes_is_what_the_library_gives(ask: Ask) -> None:
    from formery.model import Model
    from formery.runtime.generate import generate

    model = Model.from_pretrained("text/model").eval()
    (one,) = generate(model, "the quick ", max_new_tokens=20)
    assert ask("generate", "text", *PROMPT, "--max-new-tokens", 20).out == f"{one.text}\n"
    assert ask("generate", "text/model", *PROMPT, "--max-new-tokens", 20, "--chunk", 3).out == f"{one.text}\n"
    row = ask("generate", "text", *PROMPT, "--max-new-tokens", 20, "--json").json[0]
    assert row == {
        "prompt": "the quick ",
        "text": one.text,
        "finish": "length",
        "prompt_tokens": 10,
        "tokens": one.tokens,
    }


@pytest.mark.usefixtures("shop")
def test_draws_repeat_by_their_seed(ask: Ask) -> None:
    hot = ["generate", "text", *PROMPT, "--max-new-tokens", 30, "--temperature", 1.5, "--top-p", 0.99]
    first = ask(*hot, "--seed", 1)
    assert first.code == 0
    assert ask(*hot, "--seed", 1).out == first.out
    assert ask(*hot, "--seed", 2).out != first.out


@pytest.mark.usefixtures("shop")
def test_several_prompts_stand_in_one_batch(ask: Ask) -> None:
    options = ["--max-new-tokens", 8]
    alone = [ask("generate", "text", "--prompt", text, *options).out[:-1] for text in ("the", "lazy dog and")]
    assert ask("generate", "text", "-p", "the", "-p", "lazy dog and", *options).out == "\n---\n".join(alone) + "\n"


@pytest.mark.usefixtures("shop")
def test_stops_and_stdin(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ask("generate", "text", *PROMPT, "--max-new-tokens", 20).out[:-1]
    stop = whole[4:7]
    out = ask("generate", "text", *PROMPT, "--max-new-tokens", 20, "--stop", stop, "--stop", "\0\0").out
    assert out == whole[: whole.index(stop)] + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the quick ")))
    assert ask("generate", "text", "--prompt", "-", "--max-new-tokens", 20).out == whole + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    row = ask("generate", "text", "--prompt", "-", "--max-new-tokens", 1, "--json").json[0]
    assert row["prompt_tokens"] == 2


@pytest.mark.usefixtures("shop")
def test_transformers_folders_bring_their_tokenizer(ask: Ask, tmp_path: Path) -> None:
    import torch

    import formery
    from formery.interop.transformers import save
    from tests.unit.test_runtime_generate import word_pieces

    torch.manual_seed(0)
    spec: dict[str, Any] = {"stem.vocab": 290, "head.vocab": 290}
    save(formery.create_model("decoder_tiny", override=spec), tmp_path)
    tokenizer = word_pieces(tmp_path)
    row = ask("generate", tmp_path, *PROMPT, "--max-new-tokens", 5, "--json").json[0]
    assert row["prompt"] == "the quick "
    assert row["prompt_tokens"] == len(tokenizer.encode("the quick "))
    assert row["text"] == tokenizer.decode(row["tokens"])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["text"], "--prompt"),
        (["text", "--prompt", ""], "a prompt is empty"),
        (["nosuch", "--prompt", "a"], "no model is called"),
        (["olmo_hybrid_tiny", "--prompt", "a"], "learned nothing"),
        (["text.yaml", "--prompt", "a"], "learned nothing"),
        (["image", "--prompt", "a"], "predicts no text"),
        (["empty", "--prompt", "a"], "no saved model"),
        (["text", *PROMPT, "--max-new-tokens", "0"], "--max-new-tokens"),
        (["text", *PROMPT, "--temperature", "-1"], "--temperature"),
        (["text", *PROMPT, "--temperature", "nan"], "greater than or equal to 0"),
        (["text", *PROMPT, "--top-k", "3"], "top_k goes with a temperature above 0"),
        (["text", *PROMPT, "--temperature", "1", "--top-p", "0"], "top_p is above 0"),
        (["text", *PROMPT, "--stop", ""], "at least one letter"),
        (["text", "--prompt", "-", "--prompt", "-"], "stdin can be read once"),
    ],
)
def test_mistakes(arguments: list[str], says: str, refused: Callable[..., str]) -> None:
    assert says in refused("generate", *arguments)


def test_text_streams_and_an_interrupt_ends_it(made: Path) -> None:
    """The text is there before the process is over; Ctrl-C ends with 130 and one line."""
    command = [sys.executable, "-m", "formery", "generate", str(made / "text"), "--prompt", "the quick "]
    more = ["--max-new-tokens", "200000", "--temperature", "1"]
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read().decode() == "interrupted\n"
        assert process.wait(60) == 130


def test_a_reader_that_leaves_and_a_terminal_without_letters(made: Path) -> None:
    script = f"'{sys.executable}' -m formery generate '{made / 'text'}' -p é --max-new-tokens 200000 | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60, check=True)
    assert len(done.stdout) == 1
    assert done.stderr == b""
    command = [sys.executable, "-m", "formery", "generate", str(made / "text"), "-p", "é", "--temperature", "9"]
    command += ["--max-new-tokens", "64"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, timeout=60, check=True, env=env)
    assert b"?" in done.stdout


@pytest.mark.usefixtures("shop")
def test_other_dtypes_and_weights(ask: Ask) -> None:
    options = ["generate", "text", *PROMPT, "--max-new-tokens", 12]
    plain = ask(*options).out
    assert ask(*options, "--weights", "packed").out == plain
    assert len(ask(*options, "--weights", "int8", "--dtype", "bfloat16").out) > len("x\n")
    wrong = ask(*options, "--dtype", "float12")
    assert wrong.code == 2
    assert "float32" in wrong.err
