"""Wrong input of every kind into every command: exit code 0 or 2, one line, never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.conftest import Answer

NAMES = (
    "", " ", ".", "..", "/dev/null", "/dev/full", "/proc/self/mem", "nosuch", "nosuch/deep", "nosuch.yaml",
    "nosuch.onnx", "photos", "empty", "broken.png", "zero.png", "garbage.onnx", "zero.onnx", "latin.yaml", "types.yaml",
    "negative.yaml", "list.yaml", "empty.yaml", "zero.yaml", "half.json", "twice.json", "number.json", "python.yaml",
    "knot.yaml", "headless.yaml", "recipe.yaml", "mixer.", ".mixer", "mixer.nosuch", "one.txt", "same.txt", "モデル",
    "ä\u0308", "\udcff", "a\0b", "a\nb", "[bold]", "[/]", "%s", "{}", "-", "--", "x" * 5000, "hf-hub:", "~",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", str(10**30), "-" + "9" * 30, "0x10", "１", "x",
    "true", "null", "[1", "{a: b}", "a=b", "=", "a.b=c", "head.num_classes=", "stem=null", "body.blocks.*=3", "**=1",
    "train.steps=x", "data.seed=[]", "task.kind=3", "\0", "é",
)  # fmt: skip
OPTIONS = {
    "list": "--role --modality --causal --json",
    "show": "--set --yaml --json --card",
    "train": "--out --set --steps --batch-size --learning-rate --precision --seed --devices --minutes",
    "fit": "--task --max-latency --max-params --max-drop --minutes --effort --image-size --seed --out",
    "predict": "--out --batch-size --top --skip-broken --json",
    "generate": "--prompt --max-new-tokens --temperature --top-k --top-p --min-p --stop --seed --chunk --json",
    "measure": "--set --batch --size --layers --context --count --threads",
    "compare": "--batch --size --seconds --bf16 --threads",
    "probe": "--steps --seeds --width --batch --learning-rate --set --json",
    "shrink": "--out --drop --unit --data --max-drop --no-fold",
    "export": "--out --set --any-size --tolerance --int8 --data --max-drop",
    "deploy": "--data --forms --batch --at-least --threads --set",
}
FLAGS = "--causal --json --yaml --card --skip-broken --layers --count --bf16 --no-fold --any-size"
"""Options without a value."""


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with wrong names, and options with wrong values."""
    command = draw(st.sampled_from(sorted(OPTIONS)))
    line = [command, *draw(st.lists(st.sampled_from(NAMES), max_size=2))]
    for option in draw(st.lists(st.sampled_from(OPTIONS[command].split()), max_size=2, unique=True)):
        line.append(option)
        if option not in FLAGS.split():
            line.append(draw(st.sampled_from(NAMES + VALUES)))
    return line


@given(line=command_lines())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_command_line(line: list[str], shop: Path, ask: Callable[..., Answer]) -> None:
    before = sorted(shop.rglob("*"))
    answer = ask(*line)
    assert answer.code in (0, 2), (line, answer)
    assert "Traceback" not in answer.err + answer.out
    if answer.code == 2:
        assert answer.err.count("\n") == 1, (line, answer.err)
        assert answer.err.startswith("error: "), (line, answer.err)
        assert sorted(shop.rglob("*")) == before, line
    elif answer.err:
        pytest.fail(f"{line} succeeded and complained: {answer.err}")
