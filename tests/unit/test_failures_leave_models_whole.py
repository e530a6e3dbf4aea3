"""What is refused changes nothing: a model, its weights and its streams are as they were."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import formery
from formery import registry
from formery.errors import BadFile, BadSpec, BadWeights, CannotRun
from formery.files import HOST, write_text
from formery.model import Model

SMALL = {"img_size": 32}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    return formery.create_model("vit_tiny", **SMALL).to_published("timm")


def untouched(model: Model, attempt: Any) -> None:
    """The model is what it was when `attempt` has raised BadWeights."""
    before, resolved = {k: v.clone() for k, v in model.state_dict().items()}, model.resolved
    with pytest.raises(BadWeights):
        attempt()
    assert model.resolved == resolved
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "shape", "empty", "number"])
def test_weights_that_do_not_fit(theirs: dict[str, Tensor], fault: str) -> None:
    model, given = formery.create_model("vit_tiny", num_classes=10, **SMALL), dict(theirs)
    if fault == "missing":
        del given["blocks.0.attn.qkv.bias"]
    elif fault == "shape":
        given["blocks.0.attn.qkv.weight"] = torch.zeros(3, 3)
    elif fault == "empty":
        given["pos_embed"] = torch.zeros(0)
    else:
        given["pos_embed"] = torch.tensor(1.0)
    untouched(model, lambda: model.load_published(given))


def test_weights_of_another_size() -> None:
    larger = formery.create_model("vit_small", **SMALL).to_published("timm")
    model = formery.create_model("vit_tiny", num_classes=10, **SMALL)
    untouched(model, lambda: model.load_published(larger))


def test_names_of_classes_go_with_the_classes(theirs: dict[str, Tensor]) -> None:
    model = formery.create_model("vit_tiny", num_classes=2, **SMALL)
    model.extra = {"classes": ["a", "b"], "seen": 1}
    model.load_published(theirs)
    assert model.num_classes == 1000
    assert model.extra == {"seen": 1}
    model.extra = {"classes": [str(i) for i in range(1000)]}
    model.reset_classifier(3)
    assert model.extra == {}


def test_a_classifier_that_cannot_be_made() -> None:
    model = formery.create_model("vit_tiny", num_classes=5, **SMALL)
    with pytest.raises(RuntimeError):
        model.reset_classifier(10**14)
    assert model.num_classes == model.resolved["head"]["num_classes"] == 5
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_a_resolution_that_is_no_whole_number_of_patches(theirs: dict[str, Tensor]) -> None:
    with pytest.raises(BadSpec, match="96 or 112"):
        formery.create_model("vit_tiny", img_size=100)
    model = formery.create_model("vit_tiny", **SMALL)
    before = model.stem.conv.weight.clone()
    with pytest.raises(BadSpec):
        model.load_published(theirs, img_size=100)
    assert torch.equal(model.stem.conv.weight, before)


def test_a_stream_of_other_rows_is_refused_and_goes_on() -> None:
    model = formery.create_model("decoder_tiny").eval()
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        whole, state = model(ids), model.new_state(2, 6)
        model(ids[:, :4], state=state)
        with pytest.raises(CannotRun, match="2 streams, the input has 1 rows"):
            model(ids[:1, 4:], state=state)
        torch.testing.assert_close(model(ids[:, 4:], state=state), whole[:, 4:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["decoder_tiny", "olmo_hybrid_tiny"])
def test_a_state_of_inference_mode_is_used_outside_of_it(name: str) -> None:
    model = formery.create_model(name).eval()
    ids = torch.arange(6)[None]
    with torch.inference_mode():
        state = model.new_state(1, 6)
        model(ids[:, :3], state=state)
    with torch.no_grad():
        torch.testing.assert_close(model(ids[:, 3:], state=state), model(ids)[:, 3:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "ids", [torch.tensor([[0, 256]]), torch.tensor([[-1]]), torch.arange(3), torch.zeros(1, 2, 5).long()]
)
def test_tokens_that_are_none(ids: Tensor) -> None:
    with pytest.raises(CannotRun, match="tokens are"):
        formery.create_model("decoder_tiny")(ids)


def test_only_what_can_be_loaded_is_saved(tmp_path: Path) -> None:
    model = formery.create_model("vit_tiny", **SMALL)
    for extra in ([1], None, {"x": "\ud800"}, {"x": object()}):
        model.extra = extra  # type: ignore[assignment]
        with pytest.raises(BadSpec):
            model.save_pretrained(tmp_path / "model")
        assert not list((tmp_path / "model").glob("*")) if (tmp_path / "model").exists() else True


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    model = formery.create_model("decoder_tiny")
    digests = set()
    for number in range(6):
        model.save_pretrained(tmp_path / str(number))
        digests.add(hashlib.sha256((tmp_path / str(number) / "model.safetensors").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_what_dead_processes_left_is_taken_away(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / f".note.txt.{HOST}.{dead.stdout.strip()}.tmp"
    elsewhere, alive = tmp_path / ".note.txt.00000000.7.tmp", tmp_path / f".note.txt.{HOST}.{os.getppid()}.tmp"
    for path in (left, elsewhere, alive):
        path.write_text("half")
    write_text(tmp_path / "note.txt", "whole")
    assert not left.exists()
    assert elsewhere.exists()
    assert alive.exists()


def test_damaged_files_are_told_in_a_line(tmp_path: Path) -> None:
    model = formery.create_model("vit_tiny", **SMALL)
    for name, content in (("empty.pth", b""), ("junk.pth", b"junk" * 50)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFile, match=r"holds no weights that formery reads: it is .*; get") as caught:
            model.load_published(tmp_path / name)
        assert "torch.load" not in str(caught.value)


def test_folders_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    formery.create_model("decoder_tiny").save_pretrained("mine")
    assert formery.create_model(Path("mine")).name == "decoder_tiny"
    with pytest.raises(BadWeights, match=r"create_model\('./mine'\)"):
        formery.create_model("vit_tiny", pretrained="mine")
    assert formery.create_model("./mine").name == "decoder_tiny"


@pytest.mark.parametrize(
    "arguments",
    [
        {"name_or_spec": None}, {"override": "x"}, {"override": {1: 2}}, {"drop_path_rate": "x"}, {"num_classes": "x"},
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_kind(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadSpec):
        formery.create_model(**({"name_or_spec": "vit_tiny"} | arguments))


def test_numbers_of_numpy_are_numbers() -> None:
    assert formery.create_model("vit_tiny", num_classes=np.int64(3), **SMALL).num_classes == 3


@pytest.mark.parametrize(("name", "target"), [("foo", 3), ("a b*2", "x:Y"), ("", "x:Y"), ("foo", "x")])
def test_what_cannot_be_registered(name: str, target: Any) -> None:
    with pytest.raises(BadSpec):
        registry.register("mixer", name, target)
    assert name not in registry.index("mixer")


def test_maps_counted_from_the_end() -> None:
    with pytest.raises(BadSpec, match="number of last maps"):
        formery.create_model("vit_tiny", **SMALL).forward_intermediates(torch.zeros(1, 3, 32, 32), indices=-1)
