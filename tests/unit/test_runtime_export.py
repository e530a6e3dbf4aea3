"""Exports: what is checked, what is refused, what travels inside; and int8."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import formery
from formery.errors import BadData, BadFile, BadSpec, CannotExport, CannotRun, MissingExtra, Unwritable
from formery.rewrites.checks import small
from formery.runtime import export, int8, ship
from formery.runtime.export import example, export_onnx
from formery.runtime.onnx_model import METADATA, OnnxModel
from formery.tasks import task_of
from tests.unit.rewrites_families import FAMILIES, model_of


@pytest.fixture(scope="module")
def shop(model: formery.Model, text_model: formery.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the exporter gave (NAME.traced) and what was exported (NAME.onnx, NAME.json); any.*: any size."""
    folder, real = tmp_path_factory.mktemp("exported"), export._traced
    with pytest.MonkeyPatch.context() as patch:
        for name, subject, dynamic in (("image", model, "batch"), ("any", model, "all"), ("text", text_model, "batch")):

            def kept(m: Any, inputs: Any, marks: Any, name: str = name) -> Any:
                traced = real(m, inputs, marks)
                (folder / f"{name}.traced").write_bytes(traced.SerializeToString())
                return traced

            patch.setattr(export, "_traced", kept)
            report = export_onnx(subject, folder / f"{name}.onnx", dynamic=dynamic)  # type: ignore[arg-type]
            (folder / f"{name}.json").write_text(json.dumps(report.as_dict()))
        yield folder


@pytest.fixture
def again(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The exporter gives what it gave before, without seconds of tracing."""

    def give(name: str) -> None:
        monkeypatch.setattr(export, "_traced", lambda *_: onnx.load(shop / f"{name}.traced"))

    return give


def report_of(shop: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shop / f"{name}.json").read_text())
    return found


# ------------------------------------------------------------------------------------------------ what is written


def test_the_report_says_how_it_was_checked(shop: Path) -> None:
    report = report_of(shop, "image")
    assert report["inputs"] == "images"
    assert report["dynamic"] == ["batch"]
    assert report["traced_shape"] == [2, 1, 8, 8]
    assert report["checked_shapes"] == [[3, 1, 8, 8], [1, 1, 8, 8]]
    assert report["checked_shape"] == [3, 1, 8, 8]
    assert 0 <= report["max_difference"] <= 1e-4 * report["scale"]
    assert report["bytes"] == (shop / "image.onnx").stat().st_size
    assert report_of(shop, "any")["dynamic"] == ["batch", "height", "width"]
    assert report_of(shop, "text")["dynamic"] == ["batch", "length"]
    assert report_of(shop, "text")["checked_shapes"] == [[3, 37], [1, 1]]


def test_the_difference_reported_is_the_difference(shop: Path, model: formery.Model) -> None:
    ran, worst = OnnxModel(shop / "image.onnx"), 0.0
    for shape, seed in (((3,), 1), ((1,), 2)):
        inputs = example(model, *shape, seed=seed)
        with torch.no_grad():
            worst = max(worst, (ran(inputs) - model(inputs)).abs().max().item())
    assert report_of(shop, "image")["max_difference"] == pytest.approx(worst, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 5, 17])
def test_the_batch_is_free(batch: int, shop: Path, model: formery.Model) -> None:
    inputs = torch.randn(batch, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(OnnxModel(shop / "image.onnx")(inputs), model(inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (10, 22), (64, 64)])
def test_the_size_is_free(size: tuple[int, int], shop: Path, model: formery.Model) -> None:
    inputs = torch.randn(2, 1, *size)
    with torch.no_grad():
        torch.testing.assert_close(OnnxModel(shop / "any.onnx")(inputs), model(inputs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 2), (3, 7), (2, 130)])
def test_the_length_is_free(batch: int, length: int, shop: Path, text_model: formery.Model) -> None:
    ids = torch.randint(0, 256, (batch, length))
    with torch.no_grad():
        torch.testing.assert_close(OnnxModel(shop / "text.onnx")(ids), text_model(ids), atol=1e-5, rtol=1e-4)


def test_videos_of_any_height_and_width(tmp_path: Path) -> None:
    """Those of two stages, checked by the export at another size; the frames stay as they are."""
    stem = {"kind": "conv", "dim": 8, "size": [3, 4, 4], "stride": [2, 4, 4], "padding": [1, 0, 0]}
    merge = {"kind": "conv", "size": [1, 2, 2], "stride": [1, 2, 2], "padding": 0, "out_norm": "layer"}
    mixers = [{"kind": "separable_conv", "size": 3}, {"kind": "attention", "heads": 2}]
    body = {"kind": "pyramid", "dims": [8, 16], "depths": [1, 1], "mixer": mixers, "merge": merge}
    head = {"kind": "classes", "num_classes": 3}
    model = formery.Model({"stem": stem | {"frames": 4, "img_size": 32}, "body": body, "head": head}).eval()
    report = export_onnx(model, tmp_path / "video.onnx", dynamic="all")
    assert report.inputs == "videos"
    assert report.dynamic == ["batch", "height", "width"]
    assert report.checked_shapes == [[3, 3, 4, 40, 48], [1, 3, 4, 32, 32]]
    assert OnnxModel(tmp_path / "video.onnx").shape_of(2, 40) == (2, 3, 4, 40, 40)


@pytest.mark.parametrize("resize", [{"resize": "bicubic"}, {"resize": "bilinear"}, {"antialias": False}], ids=str)
def test_learned_positions_at_any_size(resize: dict[str, Any], tmp_path: Path) -> None:
    """The table is resized in the file: to larger maps, to smaller ones and along one axis."""
    spec = small.vit()
    spec["body"] |= {"depth": 1, "position": {"kind": "learned", "prefix": 1, **resize}}
    model = small.drawn(spec, dtype=torch.float32)
    report = export_onnx(model, tmp_path / "any.onnx", dynamic="all")
    assert report.checked_shapes == [[3, 3, 20, 24], [1, 3, 16, 16]]
    exported = OnnxModel(tmp_path / "any.onnx")
    for height, width in ((8, 12), (4, 40), (16, 36)):
        images = torch.randn(2, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(exported(images), model(images), atol=1e-5, rtol=1e-4)


def test_learned_positions_of_words_and_tokens_at_any_size(tmp_path: Path) -> None:
    report = export_onnx(model_of("nested by words", torch.float32), tmp_path / "any.onnx", dynamic="all")
    assert report.checked_shapes == [[3, 3, 20, 24], [1, 3, 16, 16]]


@pytest.mark.parametrize("keep", [[1.0, 0.5], [0.5, 0.3]], ids=str)
def test_tokens_that_are_skipped_are_chosen_alike(keep: list[float], tmp_path: Path) -> None:
    """By a stable sort: where the first block skips some, all scores are the same."""
    spec = copy.deepcopy(FAMILIES["slow and fast"])
    spec["body"]["keep"] = keep
    model = small.drawn(spec, dtype=torch.float32)
    assert export_onnx(model, tmp_path / "slow.onnx").max_difference < 1e-5


def test_facts_travel_inside(shop: Path, model: formery.Model) -> None:
    facts = OnnxModel(shop / "image.onnx").facts
    assert {key: facts[key] for key in model.extra} == model.extra
    assert facts["name"] == model.name
    assert facts["input_size"] == [1, 8, 8]
    assert facts["num_classes"] == 10
    assert OnnxModel(shop / "text.onnx").facts["vocab"] == 256


def test_modes_are_left_as_they_were(model: formery.Model, again: Callable[[str], None], tmp_path: Path) -> None:
    again("image")
    model.train()
    model.body.eval()
    try:
        export_onnx(model, tmp_path / "model.onnx")
        assert model.training
        assert not model.body.training
    finally:
        model.eval()


def test_a_folded_and_thinned_model_survives(model: formery.Model, digits: Any, tmp_path: Path) -> None:
    from formery.runtime.shrinking import shrink

    torch.manual_seed(1)
    made = formery.Model(model.resolved).eval()
    made.extra = dict(model.extra)
    shrink(made, source=digits, drop=1)
    export_onnx(made, tmp_path / "model.onnx")
    assert OnnxModel(tmp_path / "model.onnx").facts["plans"] == [plan["kind"] for plan in made.plans]


# ------------------------------------------------------------------------------------------------ what is refused


def test_wrong_outputs_are_refused_and_leave_no_file(
    model: formery.Model, again: Callable[[str], None], tmp_path: Path
) -> None:
    """The exporter gives the graph of another model: the same shapes, other numbers."""
    again("image")
    torch.manual_seed(7)
    with pytest.raises(CannotExport, match="differs by"):
        export_onnx(formery.Model(model.resolved), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_file_that_was_there(
    model: formery.Model, again: Callable[[str], None], tmp_path: Path
) -> None:
    again("image")
    (tmp_path / "model.onnx").write_bytes(b"before")
    torch.manual_seed(7)
    with pytest.raises(CannotExport):
        export_onnx(formery.Model(model.resolved), tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"before"


@pytest.mark.parametrize("wrong", ["nan", "shape", "small"])
def test_any_disagreement_is_refused(
    wrong: str, model: formery.Model, again: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxModel.forward

    def disagree(self: OnnxModel, inputs: Tensor) -> Tensor:
        out: Tensor = real(self, inputs)
        if wrong == "shape":
            return out[:, :-1]
        if wrong == "nan":
            return out.index_fill(1, torch.tensor([3]), torch.nan)
        return out + 2e-4 * out.abs().max() * (len(inputs) == 1)  # beyond the tolerance, for a single item alone

    again("image")
    monkeypatch.setattr(OnnxModel, "forward", disagree)
    with pytest.raises(CannotExport):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_exporter_that_fails_is_one_line(
    model: formery.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        try:
            raise ValueError("aten::nosuch is not known\nand pages of advice")
        except ValueError as error:
            raise RuntimeError("export failed\n" * 20) from error

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(CannotExport, match=r"cannot be traced: ValueError: aten::nosuch is not known$"):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_can_be_said_before_tracing(
    model: formery.Model, text_model: formery.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = formery.Model({**model.resolved, "body": {"kind": "stack", "layout": "spatial_fc", "channel": "mlp"}})
    with pytest.raises(CannotRun, match=r"body\.blocks\.0\.mixer is bound"):
        export_onnx(bound, tmp_path / "a.onnx", dynamic="all")
    with pytest.raises(BadSpec, match="for images"):
        export_onnx(text_model, tmp_path / "a.onnx", dynamic="all")
    with pytest.raises(BadSpec, match="'batch' or 'all'"):
        export_onnx(model, tmp_path / "a.onnx", dynamic="none")  # type: ignore[arg-type]
    monkeypatch.setattr(export, "LARGEST", 1000)
    with pytest.raises(CannotExport, match="GiB"):
        export_onnx(model, tmp_path / "a.onnx")
    monkeypatch.setattr(type(model.body.blocks[0].mixer), "exports", False)  # type: ignore[index]
    with pytest.raises(CannotExport, match=r"body\.blocks\.0\.mixer: \w+ declares"):
        export_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_written(model: formery.Model, again: Callable[[str], None], tmp_path: Path) -> None:
    again("image")
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable):
        export_onnx(model, tmp_path / "file" / "model.onnx")
    (tmp_path / "null.onnx").symlink_to("/dev/null")
    with pytest.raises(Unwritable, match="device"):
        export_onnx(model, tmp_path / "null.onnx")
    assert Path("/dev/null").is_char_device()


def test_without_the_extra_the_pip_line_is_said(model: formery.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"formery\[export\]"):
        export_onnx(model, "model.onnx")
    with pytest.raises(MissingExtra, match=r"formery\[export\]"):
        OnnxModel("model.onnx")


# ------------------------------------------------------------------------------------------------ running


def test_files_that_are_no_models(tmp_path: Path, shop: Path) -> None:
    (tmp_path / "garbage.onnx").write_bytes(b"garbage")
    (tmp_path / "zero.onnx").write_bytes(b"")
    (tmp_path / "half.onnx").write_bytes((shop / "image.onnx").read_bytes()[:-2000])
    (tmp_path / "folder.onnx").mkdir()
    for name in ("garbage", "zero", "half", "folder", "nosuch"):
        with pytest.raises(BadFile, match=f"{name}.onnx"):
            OnnxModel(tmp_path / f"{name}.onnx")


@pytest.mark.parametrize("text", ["{", "[1]", "3", '"a"'])
def test_damaged_facts(text: str, shop: Path, tmp_path: Path) -> None:
    proto = onnx.load(shop / "image.onnx")
    next(entry for entry in proto.metadata_props if entry.key == METADATA).value = text
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(BadFile, match="damaged"):
        OnnxModel(tmp_path / "model.onnx")


def foreign(path: Path, inputs: list[tuple[str, int, list[Any]]]) -> Path:
    """An ONNX model of somebody else's: the sum of its inputs."""
    helper = onnx.helper
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    names = [name for name, _, _ in inputs]
    node = helper.make_node("Sum" if len(names) > 1 else "Identity", names, ["y"])
    out = helper.make_tensor_value_info("y", inputs[0][1], inputs[0][2])
    graph = helper.make_graph([node], "g", values, [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_models_of_others(tmp_path: Path) -> None:
    double = OnnxModel(foreign(tmp_path / "a.onnx", [("x", onnx.TensorProto.DOUBLE, ["n", 3])]))
    assert double.facts == {}
    assert torch.equal(double(torch.ones(2, 3)), torch.ones(2, 3, dtype=torch.float64))
    whole = OnnxModel(foreign(tmp_path / "b.onnx", [("x", onnx.TensorProto.INT32, [1, "length"])]))
    assert whole.whole_numbers
    assert whole.example(whole.shape_of(1, 5)).shape == (1, 5)
    with pytest.raises(CannotRun, match="no other size or batch"):
        whole.shape_of(2)
    with pytest.raises(CannotRun, match="whole numbers"):
        whole(torch.ones(1, 5))
    with pytest.raises(BadFile, match="one input"):
        OnnxModel(foreign(tmp_path / "c.onnx", [(n, onnx.TensorProto.FLOAT, ["n"]) for n in ("x", "z")]))
    with pytest.raises(BadFile, match="one input"):
        OnnxModel(foreign(tmp_path / "d.onnx", [("x", onnx.TensorProto.STRING, ["n"])]))


def test_inputs_that_do_not_fit(shop: Path) -> None:
    model = OnnxModel(shop / "image.onnx")
    with pytest.raises(CannotRun, match=r"does not run on \[1, 1, 9, 9\]"):
        model(torch.randn(1, 1, 9, 9))
    with pytest.raises(CannotRun, match="numbers"):
        model(torch.zeros(1, 1, 8, 8, dtype=torch.long))
    assert model(torch.randn(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float32


def test_shapes_of_free_axes(shop: Path) -> None:
    assert OnnxModel(shop / "any.onnx").shape_of(4) == (4, 1, 8, 8)
    assert OnnxModel(shop / "any.onnx").shape_of(4, 12) == (4, 1, 12, 12)
    assert OnnxModel(shop / "text.onnx").shape_of(2) == (2, 128)
    assert OnnxModel(shop / "text.onnx").example((2, 9)).max() < 256


# ------------------------------------------------------------------------------------------------ int8


def test_int8_runs_and_is_near(shop: Path, digits: Any, tmp_path: Path) -> None:
    batches = list(ship.calibration(digits, task_of("classify")))
    assert [len(batch) for batch in batches] == [32] * 8
    out = int8.quantise(shop / "image.onnx", tmp_path / "int8.onnx", batches)
    assert any("Quantize" in node.op_type for node in onnx.load(out).graph.node)
    assert OnnxModel(out).facts == OnnxModel(shop / "image.onnx").facts
    inputs = digits.sample(64)
    exact, rounded = OnnxModel(shop / "image.onnx")(inputs), OnnxModel(out)(inputs)
    assert 0 < (exact - rounded).abs().max() < 0.1 * exact.abs().max()
    assert OnnxModel(out)(inputs[:1]).shape == (1, 10)


def test_int8_without_data_or_model(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there was none"):
        int8.quantise(shop / "image.onnx", tmp_path / "int8.onnx", [])
    with pytest.raises(BadFile):
        int8.quantise(tmp_path / "nosuch.onnx", tmp_path / "int8.onnx", [])
    with pytest.raises(CannotExport, match="cannot quantise"):
        int8.quantise(shop / "image.onnx", tmp_path / "int8.onnx", [torch.zeros(1, 1, 9, 9)])
    assert list(tmp_path.iterdir()) == []


def test_int8_is_kept_within_the_bound_and_only_then(
    shop: Path, model: formery.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is met exactly, then missed by a hair."""
    monkeypatch.setattr("formery.tasks.task.Task.points_lost", lambda task, before, after: 1.5)
    out = tmp_path / "int8.onnx"
    kept = ship.ship_int8(model, shop / "image.onnx", out, "digits", 1.5)
    assert kept["shipped"] is True
    assert kept["bytes"] == out.stat().st_size
    out.write_bytes(b"before")
    refused = ship.ship_int8(model, shop / "image.onnx", out, "digits", 1.4999)
    assert refused["shipped"] is False
    assert refused["points_lost"] == 1.5
    assert out.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["int8.onnx"]


def test_int8_is_judged_by_the_scores_of_both_files(
    shop: Path, model: formery.Model, digits: Any, tmp_path: Path
) -> None:
    found = ship.ship_int8(model, shop / "image.onnx", tmp_path / "int8.onnx", "digits", 100)
    task = task_of("classify")
    for key, path in (("before", shop / "image.onnx"), ("score", tmp_path / "int8.onnx")):
        assert found[key] == task.evaluate(OnnxModel(path), digits, "validation")["accuracy"]
    assert found["points_lost"] == pytest.approx(100 * (found["before"] - found["score"]), abs=1e-12)


def test_points_are_those_of_the_metric() -> None:
    assert task_of("classify").points_lost(0.95, 0.94) == pytest.approx(1)
    assert task_of("language").points_lost(1.50, 1.52) == pytest.approx(2)
    assert task_of("language").points_lost(1.52, 1.50) == pytest.approx(-2)


def test_int8_of_other_data(shop: Path, model: formery.Model, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="text data"):
        ship.ship_int8(model, shop / "image.onnx", tmp_path / "int8.onnx", "pydoc", 1)
    assert list(tmp_path.iterdir()) == []
