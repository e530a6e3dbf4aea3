"""Mistakes of `formery fit`; what it does is tested where it is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "missing argument"),
        ([""], "no data are named"),
        (["digit"], "did you mean digits"),
        (["./digits"], "does not exist"),
        (["empty"], "empty"),
        (["photos"], "one class only"),
        (["broken.png"], "one image"),
        (["one.txt"], "too short"),
        (["same.txt"], "repeats the byte"),
        (["garbage.onnx", "--task", "classify"], "garbage.onnx"),
        (["digits", "--task", "classfy"], "did you mean classify"),
        (["digits", "--task", "language"], "not language"),
        (["digits", "--max-latency", "nan"], "no finite number"),
        (["digits", "--max-latency", "0"], "not above 0"),
        (["digits", "--max-params", "0"], "--max-params"),
        (["digits", "--max-params", "x"], "--max-params"),
        (["digits", "--max-drop", "-1"], "--max-drop"),
        (["digits", "--max-drop", "inf"], "no finite number"),
        (["digits", "--minutes", "-5"], "not above 0"),
        (["digits", "--minutes", "inf"], "no finite number"),
        (["digits", "--effort", "0"], "not above 0"),
        (["digits", "--image-size", "0"], "--image-size"),
        (["digits", "--image-size", str(10**9)], "image_size"),
        (["digits", "--seed", "-1"], "--seed"),
        (["digits", "--seed", str(10**30)], "--seed"),
        (["digits", "--out", "words.txt"], "is a file"),
        (["digits", "--out", "words.txt/run"], "is a file"),
        (["digits", "--max-param", "9"], "did you mean --max-params"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    place = [] if "--out" in arguments or not arguments else ["--out", tmp_path / "run"]
    assert says in refused("fit", *arguments, *place)
    assert not (tmp_path / "run" / "model").exists()
