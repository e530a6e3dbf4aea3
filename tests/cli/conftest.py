"""A workshop that all these tests share: two small trained models, their ONNX files, data, broken things."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from formery.cli.app import run

IMAGE_SPEC = """
stem: {kind: patches, dim: 16, size: 2, in_chans: 1, img_size: 8}
body: {kind: stack, layout: depthwise_conv depthwise_conv, channel: mlp}
head: {kind: classes, num_classes: 10}
"""
TEXT_SPEC = """
stem: {kind: tokens, dim: 16, vocab: 256}
body: {kind: stack, layout: attention attention, channel: mlp}
head: {kind: next_token, vocab: 256}
"""
LENGTH = 16


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workshop as it was made; tests work on `shop`, a copy or, read-only, this one."""
    folder = tmp_path_factory.mktemp("workshop")
    with standing_in(folder):
        _files(folder)
        train = ["train", "image.yaml", "digits", "--steps", "120", "--eval-every", "60", "--learning-rate", "0.01"]
        assert run([*train, "--out", "image"]) == 0
        train = ["train", "text.yaml", "words.txt", "--steps", "10", "--eval-every", "10", "--batch-size", "8"]
        assert run([*train, "--set", f"task.length={LENGTH}", "--out", "text"]) == 0
    return folder


@pytest.fixture(scope="session")
def exported(made: Path) -> Path:
    """The workshop with image.onnx and text.onnx; traced/image.onnx is what the exporter gave for the former."""
    from formery.runtime import export

    (made / "traced").mkdir()
    real = export._traced

    def kept(model: Any, inputs: Any, marks: Any) -> Any:
        traced = real(model, inputs, marks)
        (made / "traced" / f"{model.modality}.onnx").write_bytes(traced.SerializeToString())
        return traced

    with standing_in(made), pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_traced", kept)
        for name in ("image", "text"):
            assert run(["export", name, "--out", f"{name}.onnx"]) == 0
    return made


@pytest.fixture
def traced(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds: the exporter gives for the workshop's image model what it gave before."""
    import onnx

    from formery.runtime import export

    monkeypatch.setattr(export, "_traced", lambda *_: onnx.load(exported / "traced" / "image.onnx"))


@pytest.fixture
def shop(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the workshop, which is to be left as it is found: what a test writes goes to its own tmp_path."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements take an instant; what they measure is tested where it is done."""
    from formery import measure

    for name in ("latency", "per_layer", "context_sweep"):
        monkeypatch.setattr(measure, name, partial(getattr(measure, name), seconds=0.02))


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command here, in this process."""

    def asked(*arguments: object) -> Answer:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return asked


@pytest.fixture
def refused(ask: Callable[..., Answer]) -> Callable[..., str]:
    """Run a command that must fail by a user's mistake: exit code 2, nothing on stdout, one line; returns that line."""

    def asked(*arguments: object) -> str:
        answer = ask(*arguments)
        assert answer.code == 2, answer
        assert answer.out == ""
        lines = answer.err.splitlines()
        assert len(lines) == 1, answer.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in answer.err
        return lines[0]

    return asked


def pictures(folder: Path, classes: Sequence[str], num: int, size: int = 8) -> None:
    """`num` different pictures a class, in colour."""
    drawn = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for item in range(num):
            pixels = drawn.integers(0, 256, (size, size + item, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{item}.png")


def _files(folder: Path) -> None:
    from sklearn.datasets import load_digits

    (folder / "image.yaml").write_text(IMAGE_SPEC)
    (folder / "text.yaml").write_text(TEXT_SPEC)
    (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog and runs away again\n" * 60)
    images = (load_digits().images * 15.9).astype(np.uint8)
    photos = folder / "photos"
    (photos / "deep").mkdir(parents=True)
    for item in range(3):
        Image.fromarray(images[item]).save(photos / "deep" / f"{item}.png")
    Image.fromarray(np.dstack([images[3]] * 3)).save(photos / "colour.jpg")
    Image.fromarray(np.dstack([images[4]] * 3 + [images[4]])).save(photos / "ä lpha.png")
    (photos / "notes.txt").write_text("no image")
    shutil.copytree(photos, folder / "mixed")
    whole = (photos / "deep" / "0.png").read_bytes()
    (folder / "mixed" / "0 broken.png").write_bytes(whole[:60])
    (folder / "broken.png").write_bytes(whole[:60])
    (folder / "zero.png").write_bytes(b"")
    (folder / "empty").mkdir()
    _broken_specs(folder)
    (folder / "garbage.onnx").write_bytes(b"garbage")
    (folder / "zero.onnx").write_bytes(b"")
    (folder / "one.txt").write_text("a")
    (folder / "same.txt").write_text("a" * 500)


def _broken_specs(folder: Path) -> None:
    specs = {
        "latin.yaml": b"stem: \xff\xfe\n",
        "types.yaml": b"stem: 3\nbody: [1, 2]\nhead: null\n",
        "negative.yaml": IMAGE_SPEC.replace("dim: 16", "dim: -4").encode(),
        "unknown.yaml": IMAGE_SPEC.replace("dim: 16", "dimm: 16").encode(),
        "part.yaml": IMAGE_SPEC.replace("depthwise_conv depthwise_conv", "atention").encode(),
        "list.yaml": b"- 1\n- 2\n",
        "empty.yaml": b"",
        "zero.yaml": b"\0\0\0",
        "number.json": b"3",
        "half.json": b'{"stem": ',
        "twice.json": b'{"stem": 1, "stem": 2}',
        "deep.json": b"[" * 100_000,
        "python.yaml": b"stem: !!python/object/apply:os.system ['true']\n",
        "knot.yaml": b"stem: &a {kind: *a}\nbody: *a\nhead: *a\n",
        "headless.yaml": b"stem: patches\nbody: stack\n",
        "recipe.yaml": b"title: t\ndata: {source: digits}\ntask: classify\nmodel: vit_tiny\ntrain: {}\n",
    }
    for name, content in specs.items():
        (folder / name).write_bytes(content)
