"""Real processes: pipes that close, full disks, interrupts, narrow and colourless terminals, other encodings."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

START = [sys.executable, "-m", "formery"]


def start(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    changed = more.pop("env", {})
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | changed
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    return subprocess.run([*START, *arguments], env=env, timeout=120, check=False, **options)


def test_a_reader_that_leaves_is_no_error() -> None:
    script = f"'{sys.executable}' -m formery list --json | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[", "0"]
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"], ["show", "metaformer"]])
def test_a_full_disk(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = start(*arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_streams_that_are_closed_or_full() -> None:
    with open("/dev/full", "w") as full:
        assert start("list", "nosuch", stderr=full).returncode == 2
    for closed in ("1", "2"):
        script = f"'{sys.executable}' -m formery list {'nosuch' if closed == '2' else ''} {closed}>&-"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == (2 if closed == "2" else 0)
        assert "Traceback" not in done.stderr


def test_a_pipe_gets_whole_lines_and_no_colour() -> None:
    out = start("list", "poolformer_*").stdout
    assert "\x1b" not in out
    assert sum(line.startswith(" poolformer_") for line in out.splitlines()) == 5
    assert len([line for line in out.splitlines() if line.strip()]) == 5 + 3


def test_columns_are_kept() -> None:
    out = start("list", "poolformer_*", env={"COLUMNS": "60"}).stdout
    assert max(len(line) for line in out.splitlines()) <= 60
    assert "poolformer_s12" in out


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_encodings_without_letters_for_it(env: dict[str, str]) -> None:
    assert start("list", env=env).returncode == 0
    done = start("show", "模型", env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no model is called ")


def on_a_terminal(*arguments: str, env: dict[str, str]) -> str:
    """What a command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*START, *arguments], stdout=theirs, stderr=theirs, env=os.environ | env) as process:
        os.close(theirs)
        chunks: list[bytes] = []
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other side has closed
                break
            if not chunk:
                break
            chunks.append(chunk)
        process.wait(60)
    os.close(ours)
    return b"".join(chunks).decode()


def test_colours_on_terminals_unless_told_otherwise() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(on_a_terminal("list", "--help", env={"TERM": "xterm", "COLUMNS": "80"}))
    for arguments in (["list", "--help"], ["list", "vit_*"], ["list", "nosuch"]):
        assert not colour.search(on_a_terminal(*arguments, env={"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"}))
    assert "\x1b" not in on_a_terminal("list", "vit_*", env={"TERM": "dumb", "COLUMNS": "80"})


INTERRUPTED = """
import builtins, os, signal, sys
before = set(sys.modules)
from formery.cli import main
assert set(sys.modules) - before <= {"__future__", "formery", "formery.cli"}
def counted(name, *more, real=builtins.__import__):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *more)
left, builtins.__import__ = int(sys.argv.pop()), counted
main()
"""


@pytest.mark.parametrize("number", [1, 2, 5, 20, 100])
def test_an_interrupt_at_once_is_quiet(number: int) -> None:
    """Nothing is imported before it can be answered; SIGINT comes with one of the next imports."""
    command = [sys.executable, "-c", INTERRUPTED, "list", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (130, -signal.SIGINT)
    assert done.stdout == ""
    assert done.stderr in ("", "interrupted\n")


def test_an_interrupted_training_says_so_and_goes_on(made: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a checkpoint that --resume goes on from."""
    out = tmp_path / "run"
    arguments = [
        "train",
        str(made / "image.yaml"),
        "digits",
        "--steps",
        "1000000",
        "--eval-every",
        "5",
        "--out",
        str(out),
    ]
    with subprocess.Popen([*START, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 90
        while not list(out.glob("training/checkpoints/*")) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    last = said.splitlines()[-1]
    assert last.startswith("interrupted after step ")
    assert last.endswith(f" of 1000000; go on by: formery train {made / 'image.yaml'} digits --out {out} --resume")
    assert "Traceback" not in said
    assert not (out / "result.json").exists()
    assert list(out.glob("training/checkpoints/*"))


def test_a_terminated_command_leaves_nothing_half_written(made: Path, tmp_path: Path) -> None:
    """A prediction that is told to end while it writes."""
    (tmp_path / "photos").mkdir()
    for item in range(15000):
        os.link(made / "photos" / "deep" / f"{item % 3}.png", tmp_path / "photos" / f"{item}.png")
    arguments = ["predict", str(made / "image"), str(tmp_path / "photos"), "--batch-size", "1"]
    with subprocess.Popen([*START, *arguments, "--out", str(tmp_path / "rows.csv")], stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 90
        while not list(tmp_path.glob(".rows.csv.*")) and time.monotonic() < end:
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == b""
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_folders_that_may_not_be_written_or_read(refused: Callable[..., str]) -> None:
    """As a user without rights, since root may do anything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        secret = Path(folder) / "secret.yaml"
        secret.write_text("stem: patches")
        secret.chmod(0o600)
        cases = [
            (["export", "vit_tiny", "--out", f"{folder}/model.onnx"], "Permission denied"),
            (["train", "vit_tiny", "digits", "--steps", "1", "--out", f"{folder}/run"], "Permission denied"),
            (["fit", "digits", "--out", f"{folder}/run"], "Permission denied"),
            (["show", str(secret)], "Permission denied"),
        ]
        refused("show", "nosuch.yaml")  # what is imported late is imported now: nobody may not read it
        for arguments, _ in cases[:3]:
            refused(*arguments[:-1], f"{secret}/model.onnx")
        for arguments, says in cases:
            os.seteuid(65534)
            try:
                line = refused(*arguments)
            finally:
                os.seteuid(0)
            assert says in line
