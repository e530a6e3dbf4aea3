"""What is answered without torch, and fast; run in one fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from formery.cli.app import COMMANDS

ANSWERED = [
    ["list"],
    ["list", "--json"],
    ["list", "--role", "mixer"],
    ["list", "norms"],
    ["list", "poolformer_*"],
    ["show", "metaformer"],
    ["--version"],
    ["--help"],
    *([name, "--help"] for name in COMMANDS),
]
REFUSED = [
    ["lst"],
    ["list", "nosuch"],
    ["list", "--nosuch"],
    ["list", "--role", "nosuch"],
    ["show", "nosuch"],
    ["show", "mixer.nosuch"],
    ["show", "nosuch.yaml"],
    ["show", "latin.yaml"],
    ["show", "half.json"],
    ["show", "list.yaml"],
    ["show", "recipe.yaml"],
    ["show", "vit_tiny", "--set", "head"],
    ["measure", "nosuch"],
    ["measure", "photos"],
    ["measure", "vit_tiny", "--batch", "0"],
    ["measure", "vit_tiny", "--context", "x"],
    ["compare", "vit_tiny"],
    ["compare", "vit_tiny", "nosuch"],
    ["compare", "vit_tiny", "nosuch.onnx"],
    ["compare", "vit_tiny", "vit_small", "--seconds", "nan"],
    ["export", "vit_tiny", "--out", "model.txt"],
    ["export", "vit_tiny", "--int8", "a.onnx"],
    ["export", "vit_tiny", "--out", "one.txt/model.onnx"],
    ["shrink", "vit_tiny"],
    ["shrink", "broken", "--unit", "nosuch"],
    ["train", "vit_tiny"],
    ["train", "vit_tiny", "digits"],
    ["train", "vit_tiny", "nosuch", "--steps", "1"],
    ["train", "nosuch", "digits", "--steps", "1"],
    ["train", "vit_tiny", "digits", "--steps", "1", "--precision", "64"],
    ["train", "vit_tiny", "digits", "--steps", "1", "--devices", "nosuch"],
    ["train", "vit_tiny", "digits", "--steps", "1", "--out", "one.txt"],
    ["train", "vit_tiny", "digits", "--steps", "1", "--set", "train.nosuch=1"],
    ["fit", "nosuch"],
    ["fit", "digits", "--task", "nosuch"],
    ["fit", "digits", "--minutes", "inf"],
    ["fit", "digits", "--out", "one.txt"],
    ["predict", "nosuch", "photos"],
    ["predict", "vit_tiny", "photos"],
    ["predict", "photos", "nosuch"],
    ["predict", "photos", "photos", "--out", "rows.txt"],
    ["generate", "nosuch", "--prompt", "a"],
    ["generate", "vit_tiny", "--prompt", "a"],
    ["generate", "photos"],
    ["verify", "--nosuch"],
    ["doctor", "--nosuch"],
]

SCRIPT = """
import contextlib, io, json, resource, sys, time
from formery.cli.app import run
used = resource.getrusage(resource.RUSAGE_SELF)
answers = [{"start": used.ru_utime + used.ru_stime}]
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    start = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    answers.append({"arguments": arguments, "code": code, "out": out.getvalue(), "err": err.getvalue(),
                    "seconds": time.process_time() - start, "torch": "torch" in sys.modules})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(made: Path) -> list[dict[str, Any]]:
    """Every command of both lists, one after another in a process that has just begun."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(ANSWERED + REFUSED), capture_output=True, text=True,
        cwd=made, timeout=120, check=True, env={k: v for k, v in os.environ.items() if k != "COLUMNS"},
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_nothing_of_it_imports_torch(answers: list[dict[str, Any]]) -> None:
    assert [" ".join(answer["arguments"]) for answer in answers[1:] if answer["torch"]] == []


def test_answers_are_there(answers: list[dict[str, Any]]) -> None:
    for answer in answers[1 : 1 + len(ANSWERED)]:
        assert answer["code"] == 0, answer
        assert answer["out"].strip(), answer


def test_mistakes_are_one_line_and_exit_code_2(answers: list[dict[str, Any]]) -> None:
    for answer in answers[1 + len(ANSWERED) :]:
        assert answer["code"] == 2, answer
        assert answer["out"] == "", answer
        assert answer["err"].startswith("error: "), answer
        assert answer["err"].count("\n") == 1, answer


def test_they_come_at_once(answers: list[dict[str, Any]]) -> None:
    """Processor time: what else runs on the machine does not count."""
    start = answers[0]["start"]
    slow = {" ".join(a["arguments"]): start + a["seconds"] for a in answers[1:] if start + a["seconds"] > 0.5}
    assert slow == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, answers: list[dict[str, Any]]) -> None:
    text = next(a["out"] for a in answers[1:] if a["arguments"] == [name, "--help"])
    assert "Example" in text
    assert f"formery {name}" in " ".join(text.split())
    assert "--json" in text


def test_the_same_by_the_installed_names() -> None:
    for start in ([sys.executable, "-m", "formery"], [str(Path(sys.executable).with_name("formery"))]):
        done = subprocess.run([*start, "--version"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("formery ")


def test_without_arguments_there_is_help(ask: Any) -> None:
    answer = ask()
    assert answer.code == 2
    assert "Usage" in answer.out
    assert all(name in answer.out for name in COMMANDS)
