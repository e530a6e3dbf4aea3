"""Deployment: exact rewrites first, then the fastest form that agrees on images."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formery import registry
from formery.errors import BadData, BadFile, BadSpec, CannotRewrite, CannotRun
from formery.model import Model
from formery.parts.dense import Dense
from formery.rewrites.rewrite import Exact
from formery.runtime.deploy import deploy, forms_of, opened
from formery.runtime.deploy.agreement import agreement
from formery.runtime.deploy.convolved import Convolved, by_convolutions
from formery.runtime.deploy.evidence import Evidence, evidence
from formery.runtime.deploy.forms import FORMS, runner
from formery.runtime.deploy.photographs import crops, normalised
from formery.runtime.deploy.run import unfit
from formery.runtime.predict import open_predictor

SPEC = {
    "stem": {"kind": "convs", "widths": [8, 12], "img_size": 32},
    "body": {"kind": "pyramid", "dims": [12, 16], "depths": [1, 1], "mixer": "depthwise_conv",
             "scheme": {"kind": "pre", "scale": 0.5}, "merge": {"kind": "conv", "out_norm": "batch"}},
    "head": {"kind": "classes", "num_classes": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    made = Model(SPEC).eval()
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if "running" not in name and tensor.dim() == 1:
                tensor.add_(0.3 * torch.randn_like(tensor))
    made.extra["classes"] = list("abcd")
    made.extra["preprocess"] = {
        "mean": [0.5] * 3, "std": [0.25] * 3, "size": [32, 32], "channels": 3, "interpolation": "bilinear",
        "fit": "crop",
    }  # fmt: skip
    return made


def quickly(model: Model, out: Path, **more: Any) -> Any:
    return deploy(model, out, seconds=0.2, threads=1, **more)


def test_what_is_left_in_the_folder(model: Model, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told: list[str] = []
    report = quickly(model, tmp_path / "out", forms=["packed", "bfloat16", "onnx"], at_least=0.5, tell=told.append)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.plans == []
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"config.json", "model.safetensors", "model.onnx", "deploy.json", "deploy.png"}
    fold = {entry.get("label", entry["rewrite"]): entry for entry in report.rewrites}["fold"]
    assert fold["taken"]
    assert fold["steps"]["batch_norm_into_writer"] == 3
    assert fold["steps"]["scale_into_writer"] == 4
    assert fold["difference"] < 1e-5
    assert [row["form"] for row in report.rows] == ["as it came", "eager", "packed", "bfloat16", "onnx"]
    assert all(row["difference"] < 1e-4 for row in report.rows if row["form"] in ("eager", "packed", "onnx"))
    assert any("form: onnx" in line for line in told)
    assert json.loads((tmp_path / "out" / "deploy.json").read_text())["chosen"] == report.chosen
    images = normalised(crops(3, (3, 32, 32)), model)
    run = opened(tmp_path / "out", "eager")
    torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-4)
    assert opened(tmp_path / "out").form == report.chosen
    predictor = open_predictor(tmp_path / "out")
    assert predictor.extra["classes"] == list("abcd")
    assert predictor(images).dtype == torch.float32


def test_int8_and_compiled(model: Model, tmp_path: Path) -> None:
    report = quickly(model, tmp_path / "out", forms=["int8", "compiled-free"], at_least=0.0)
    rows = {row["form"]: row for row in report.rows}
    assert 1e-6 < rows["int8"]["difference"] < 0.2
    assert rows["compiled-free"]["difference"] < 1e-4
    assert (tmp_path / "out" / "int8.onnx").exists()


def test_only_what_agrees_is_chosen() -> None:
    scores = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 3.0], [0.0, 1.0]])
    other = scores.clone()
    other[0] = torch.tensor([2.0, 1.9])
    found = agreement(scores, other)
    assert found.top1 == 0.75
    assert found.difference == pytest.approx(1 / 3)
    own = Evidence(scores, scores, "images", own=True)
    assert unfit(FORMS["int8"], found, 0.7, own) is None
    assert unfit(FORMS["int8"], found, 0.8, own) == "the likeliest class stays on 75.0% of 4 images, less than 80 %"
    assert "more than rounding" in str(unfit(FORMS["onnx"], found, 0.7, own))
    assert agreement(scores, scores * float("nan")).difference == float("inf")


class Liar(Exact):
    """Promises equal outputs and halves them."""

    kind = "liar"

    @classmethod
    def decide(cls, model: nn.Module, data: Any = None, **options: Any) -> Any:
        return cls.plan({}, [], []) | {"steps": [{"do": "halve"}]}

    @classmethod
    def steps_of(cls, plan: Any) -> list[Any]:
        return list(plan["steps"])

    @classmethod
    def do(cls, model: nn.Module, steps: list[Any]) -> None:
        model.get_submodule("head.fc").weight.data.mul_(0.5)  # type: ignore[union-attr, operator]

    @classmethod
    def why_not(cls, model: nn.Module) -> str | None:
        return None


def test_a_rewrite_that_is_not_exact_is_found_out(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = dict(registry.index("rewrite"))
    monkeypatch.setattr(registry, "index", lambda role: [*index, "liar"] if role == "rewrite" else list(index))
    monkeypatch.setattr(
        "formery.rewrites.find", lambda name: Liar if name == "liar" else registry.find("rewrite", name)
    )
    with pytest.raises(CannotRewrite, match="liar is exact, but scores changed by"):
        quickly(model, tmp_path / "out", forms=[])
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match="no form is called 'onx'; did you mean"):
        forms_of(["onx"])
    assert forms_of(["all"]) == tuple(FORMS)
    with pytest.raises(BadSpec, match="share from 0 to 1"):
        quickly(model, tmp_path / "out", at_least=2)
    with pytest.raises(BadSpec, match="batch is at least 1"):
        quickly(model, tmp_path / "out", batch=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(BadSpec, match="is there already"):
        quickly(model, tmp_path / "mine")
    with pytest.raises(BadFile, match=r"deploy\.json does not exist"):
        opened(tmp_path / "mine")
    (tmp_path / "mine" / "deploy.json").write_text('{"format": 1, "chosen": "best", "layout": "contiguous"}')
    with pytest.raises(BadFile, match="names no form that can be run, but 'best'"):
        opened(tmp_path / "mine")
    with pytest.raises(CannotRun, match="takes text; images are deployed here"):
        quickly(tiny_text(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def tiny_text() -> Model:
    return Model(
        {
            "stem": {"kind": "tokens", "dim": 8, "vocab": 16},
            "body": {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 2}},
            "head": {"kind": "next_token", "vocab": 16},
        }
    )


def test_photographs_are_cut_alike_each_time() -> None:
    images = crops(4, (3, 20, 24))
    assert images.shape == (4, 3, 20, 24)
    assert torch.equal(images, crops(4, (3, 20, 24)))
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert torch.equal(crops(2, (1, 8, 8))[:, 0], crops(2, (5, 8, 8))[:, 4])


def test_dense_layers_as_convolutions_compute_the_same() -> None:
    layer = Dense(6, 8)
    named = by_convolutions(nn.Sequential(layer, nn.Linear(8, 4), nn.GELU()))
    for shape in ((2, 6), (2, 5, 6), (2, 3, 4, 6), (2, 2, 3, 4, 6)):
        x = torch.randn(shape)
        torch.testing.assert_close(layer(x, "gelu"), F.gelu(F.linear(x, layer.weight, layer.bias)))
        torch.testing.assert_close(named[0](x), F.linear(x, layer.weight, layer.bias))
    assert list(named.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert type(named[1]) is Convolved
    assert type(by_convolutions(nn.Linear(2, 2).bfloat16())) is nn.Linear


def test_what_a_model_was_trained_on_judges_its_forms(model: Model, tmp_path: Path) -> None:
    from formery.data import open_data

    taught = copy.deepcopy(model)
    data = open_data("textures", num_per_class=20)
    taught.extra["data"] = {"name": "textures", "digest": data.digest, "options": {"num_per_class": 20}}
    found = evidence(taught)
    assert (found.own, found.source) == (True, "images of the validation part of textures")
    part = data.validation()
    assert len(found.judged) == len(part)
    data.normalise_as(model.extra["preprocess"])
    ours = sorted(image.sum().item() for image in data.batch_of(part.items)[0])
    torch.testing.assert_close(sorted(image.sum().item() for image in found.judged), ours)
    taught.extra["data"]["digest"] = "another"
    assert "what is called textures here is not what" in evidence(taught).why_not
    taught.extra["data"]["name"] = str(tmp_path / "gone")
    found = evidence(taught)
    assert not found.own
    assert "cannot be opened here" in found.why_not
    assert len(found.judged) == len(found.others) == 64


def test_photographs_are_no_reason_to_choose_an_approximate_form(model: Model, tmp_path: Path) -> None:
    foreign, own = evidence(model), Evidence(torch.zeros(1), torch.zeros(1), "images", own=True)
    seen = agreement(scores := torch.eye(4), scores)
    assert "does not say what it was trained on); --data decides" in str(unfit(FORMS["int8"], seen, 0.99, foreign))
    assert unfit(FORMS["int8"], seen, 0.99, own) is None
    assert unfit(FORMS["int8"], seen, 0.0, foreign) is None, "nobody asks for agreement"
    assert unfit(FORMS["packed"], seen, 0.99, foreign) is None
    report = quickly(model, tmp_path / "out", forms=["bfloat16"])
    assert report.chosen == "eager"
    assert (report.judged, report.own_images) == (64, False)
    assert [row["form"] for row in report.rows if "unfit" in row] == ["bfloat16"]


def test_a_folder_without_classes_will_do(model: Model, tmp_path: Path) -> None:
    from PIL import Image

    for number, image in enumerate(crops(6, (3, 40, 40))):
        pixels = (255 * image).byte().movedim(0, -1).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes(b"none")
    found = evidence(model, tmp_path)
    assert found.own
    assert found.source == f"images of {tmp_path} (1 more cannot be read)"
    assert [len(found.judged), len(found.others)] == [3, 3]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "7.png").write_bytes(b"none")
    with pytest.raises(BadData, match="none of 1 images in"):
        evidence(model, tmp_path / "bad")


def test_sizes_of_other_models_do_not_disturb_a_compiled_one(model: Model) -> None:
    for side in (40, 48):  # from here on torch takes the sides of images for free
        torch.compile(model, backend="eager")(torch.randn(2, 3, side, side))
    images = torch.randn(8, 3, 32, 32)
    run = runner("compiled-free", model, Path(), "contiguous")
    torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-4)
