"""The main job on drawn data: everything it promises is there, and a killed fit ends as an unbroken one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from formery.data.drawn import write_textures
from formery.errors import BadSpec, Unwritable
from formery.model import Model
from formery.runtime.onnx_model import OnnxModel
from formery.search.fit import fit
from formery.search.report import page
from formery.search.settings import Settings
from formery.training.processes import taken

EFFORT = 0.03


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_textures(tmp_path_factory.mktemp("textures") / "images", 67, size=24)


def command(textures: Path, out: Path, *more: str) -> list[str]:
    given = ["fit", str(textures), "--effort", str(EFFORT), "--out", str(out), *more]
    return [sys.executable, "-m", "formery", *given]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def unbroken(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    out, start = tmp_path_factory.mktemp("fit") / "unbroken", time.monotonic()
    done = subprocess.run(command(textures, out), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out, time.monotonic() - start


def weights(out: Path) -> dict[str, bytes]:
    """Every tensor's bytes (the file's own order of header entries is not fixed)."""
    tensors = load_file(out / "model" / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_a_fit_leaves_a_model_its_export_and_the_evidence(unbroken: tuple[Path, float]) -> None:
    out, _ = unbroken
    found = report(out)
    assert len(found["candidates"]) >= 6
    assert {c["pure"] for c in found["candidates"]} == {True, False}
    assert found["winner"] in found["race"][-1]["kept"]
    assert {"accuracy_onnx", "accuracy", "baselines"} <= found["test"].keys()
    assert found["validation"]["accuracy"] > 0.5
    for key in ("specs", "seed", "versions", "machine", "data"):
        assert found[key] is not None
    assert found["data"]["digest"]
    model = Model.from_pretrained(out / "model").eval()
    images = torch.randn(2, model.resolved["stem"]["in_chans"], 24, 24)
    torch.testing.assert_close(OnnxModel(out / "model.onnx")(images), model(images), atol=1e-4, rtol=1e-3)
    assert sorted(model.extra["classes"]) == model.extra["classes"]
    html = (out / "report.html").read_text()
    assert html.count("<svg") == 3
    assert "http-equiv" not in html
    assert "<script" not in html
    assert "src=" not in html


def test_shrinking_keeps_the_score_within_the_bound_and_removes_work(unbroken: tuple[Path, float]) -> None:
    found = report(unbroken[0])
    steps = found["shrinking"]
    first = steps[0]["metrics"]["accuracy"]
    for step in steps:
        within = 100 * (first - step["metrics"]["accuracy"]) <= found["settings"]["max_drop"] + 1e-9
        assert step["kept"] is within or step["name"] == "fold"
    params = [step["params"] for step in steps if step["kept"]]
    assert params == sorted(params, reverse=True)


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_killed_and_resumed_it_ends_with_the_same_winner_and_weights(
    moment: int, textures: Path, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    whole, seconds = unbroken
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(textures, out), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    moments = random.Random(7)
    share = [moments.uniform(0.25, 0.9) for _ in range(3)][moment - 1]
    try:
        process.wait(timeout=share * seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(
        command(textures, out, "--resume"), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert report(out)["winner"] == report(whole)["winner"]
    assert weights(out) == weights(whole)
    assert report(out)["race"] == report(whole)["race"]


def test_a_text_file_works_as_well(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("\n".join(f"{i} times {i + 1} is {i * (i + 1)}." for i in range(400)))
    found = fit(path, tmp_path / "out", Settings(effort=0.1), quiet=True)
    assert found["metric"]["name"] == "bits_per_byte"
    assert found["test"]["bits_per_byte_onnx"] == pytest.approx(found["test"]["bits_per_byte"], abs=1e-3)
    assert {"xz", "xz_primed", "markov_3", "markov_5"} <= found["test"]["baselines"].keys()
    assert "bits per byte" in page(found)


def test_bounds_that_nothing_meets_are_refused_with_what_would_do(textures: Path, tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match=r"at most 100 parameters; the least is 264,739: raise the bound"):
        fit(textures, tmp_path / "out", Settings(max_params=100), quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_fit_makes_again_what_is_missing(
    textures: Path, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    out = shutil.copytree(unbroken[0], tmp_path / "out")
    shutil.rmtree(out / "model")
    names = [name for name in ("model.onnx", "model.int8.onnx", "report.html", "report.json") if (out / name).exists()]
    for name in names:
        (out / name).unlink()
    found = fit(textures, out, Settings(effort=EFFORT), resume=True, quiet=True)
    assert found == report(unbroken[0]) == report(out)
    assert weights(out) == weights(unbroken[0])
    model, images = Model.from_pretrained(out / "model").eval(), torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(OnnxModel(out / "model.onnx")(images), model(images), atol=1e-4, rtol=1e-3)
    assert [(out / name).exists() for name in names] == [True] * len(names)


def test_two_fits_do_not_share_a_folder(textures: Path, tmp_path: Path) -> None:
    with taken(tmp_path / "out" / "work"), pytest.raises(Unwritable, match=r"another process \(\d+\) is at work"):
        fit(textures, tmp_path / "out", quiet=True)


def test_a_bound_on_parameters_holds(textures: Path, tmp_path: Path) -> None:
    found = fit(textures, tmp_path / "out", Settings(max_params=300_000, effort=0.02), quiet=True)
    raced = [c for c in found["candidates"] if c["raced"]]
    assert 0 < len(raced) < len(found["candidates"])
    assert all(c["params"] <= 300_000 for c in raced)
    assert found["model"]["params"] <= 300_000
