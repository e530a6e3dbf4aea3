"""Published checkpoints in all the forms that users have them, and everything that can be wrong with one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import formery
from formery.errors import BadFile, BadSpec, BadWeights
from formery.interop import transformers
from formery.model import Model
from formery.published import resize

SPEC: dict[str, Any] = {
    "name": "metaformer",  # a system's name: any size of it
    "stem": {"kind": "conv", "dim": 8, "img_size": 32},
    "body": {
        "kind": "pyramid",
        "dims": [8, 16],
        "depths": [1, 1],
        "mixer": ["pooling", {"kind": "attention", "heads": 2, "bias": False}],
        "scheme": {"kind": "pre", "norm": "layer", "scale": 1e-5},
        "positions": [None, "learned"],
    },
    "head": {"kind": "classes", "num_classes": 4, "norm": "layer"},
}
VIT: dict[str, Any] = {
    "name": "vit",
    "stem": {"kind": "patches", "dim": 16, "size": 4, "img_size": 16},
    "body": {
        "kind": "stack",
        "depth": 2,
        "mixer": {"kind": "attention", "heads": 2},
        "prefix": 1,
        "position": {"kind": "learned", "prefix": 1},
    },
    "head": {"kind": "classes", "num_classes": 4, "pool": "token"},
}


@pytest.fixture
def source() -> Model:
    return Model(SPEC).eval()


@pytest.fixture
def theirs(source: Model) -> dict[str, Tensor]:
    return source.to_published("authors")


def fresh(**changes: Any) -> Model:
    torch.manual_seed(1)
    return Model({**SPEC, **changes}).eval()


def same(one: Model, other: Model) -> bool:
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return torch.equal(one(images), other(images))


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "module", "params", None])
def test_forms_of_files(wrapper: str | None, source: Model, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    """A state dict bare or wrapped, a pickle of tensors, safetensors, folders with one of them."""
    content: dict[str, Any] = {wrapper: theirs, "epoch": 3} if wrapper else dict(theirs)
    torch.save(content, tmp_path / "checkpoint.pth")
    for given in (content, tmp_path / "checkpoint.pth", tmp_path):
        model = fresh()
        assert not same(model, source)
        assert model.load_published(given) == []
        assert same(model, source)


def test_safetensors_and_parallel_names(source: Model, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({f"module.{name}": tensor for name, tensor in theirs.items()}, tmp_path / "weights.safetensors")
    model = fresh()
    assert model.load_published(str(tmp_path / "weights.safetensors")) == []
    assert same(model, source)


def test_names_without_a_use_are_returned(source: Model, theirs: dict[str, Tensor]) -> None:
    model = fresh()
    extra = {"head_dist.weight": torch.zeros(4, 16), "norm_pre.bias": torch.zeros(3)}
    assert sorted(model.load_published(theirs | extra)) == sorted(extra)
    assert same(model, source)


def test_what_is_missing_or_of_another_shape_is_listed(theirs: dict[str, Tensor]) -> None:
    del theirs["network.0.0.mlp.fc1.bias"]
    theirs["norm.weight"] = torch.zeros(5)
    model = fresh()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BadWeights, match="authors weights do not fit metaformer") as caught:
        model.load_published(theirs)
    message = str(caught.value)
    assert "network.0.0.mlp.fc1.bias is missing" in message
    assert "norm.weight is [5], head.norm.weight is [16]" in message
    assert "\n" not in message
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_other_classes_channels_and_resolution_are_adopted(tmp_path: Path) -> None:
    stem = {**SPEC["stem"], "in_chans": 1, "img_size": 64}
    source = Model({**SPEC, "stem": stem, "head": {**SPEC["head"], "num_classes": 9}}).eval()
    model = fresh()
    model.load_published(source.to_published("authors"))
    assert model.num_classes == 9
    assert model.resolved["stem"] == source.resolved["stem"]
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), source(images))


def test_vit_between_resolutions() -> None:
    """Adopted where nothing is asked for, resized where it is; prefix positions stay."""
    source = Model({**VIT, "stem": {**VIT["stem"], "img_size": 32}}).eval()
    theirs = source.to_published("timm")
    adopted = Model(VIT)
    adopted.load_published(theirs)
    assert adopted.resolved["stem"]["img_size"] == 32
    resized = Model(VIT)
    resized.load_published(theirs, img_size=16)
    assert resized.resolved["stem"]["img_size"] == 16
    assert resized.body.position.table.shape == (4, 4, 16)
    assert torch.equal(resized.body.position.prefix, source.body.position.prefix)
    assert resized(torch.randn(1, 3, 16, 16)).shape == (1, 4)
    oblong = Model(VIT)
    oblong.load_published(theirs, img_size=[32, 16])
    assert oblong.body.position.table.shape == (8, 4, 16)


def test_a_spatial_fc_is_resized() -> None:
    spec = {**SPEC, "body": {**SPEC["body"], "mixer": ["pooling", "spatial_fc"], "positions": None}}
    source = Model({**spec, "stem": {**SPEC["stem"], "img_size": 64}}).eval()
    model = Model(spec).eval()
    model.load_published(source.to_published("authors"), img_size=32)
    assert model.body.stages[1].blocks[0].mixer.mix.weight.shape == (16, 16)
    adopted = Model(spec)
    adopted.load_published(source.to_published("authors"))
    assert adopted.resolved["stem"]["img_size"] == 64


def test_a_spatial_fcs_bias_is_resized_and_a_spatial_mlp_refused() -> None:
    def model_of(mixer: Any) -> Model:
        return Model({**SPEC, "body": {**SPEC["body"], "mixer": ["pooling", mixer], "positions": None}})

    model = model_of({"kind": "spatial_fc", "bias": True})
    resize(model, 64)
    assert model.body.stages[1].blocks[0].mixer.mix.bias.shape == (64,)
    model = model_of("spatial_mlp")
    before = model.resolved
    with pytest.raises(BadWeights, match=r"body\.stages\.1\.blocks\.0\.mixer: 'spatial_mlp' has no rule for another"):
        resize(model, 64)
    assert model.resolved == before


def test_another_models_names() -> None:
    theirs = Model(VIT).to_published("timm")
    with pytest.raises(BadWeights, match=r"not those of metaformer \(authors, timm, transformers, formery\): "):
        fresh().load_published(theirs)


def test_a_model_that_nobody_published() -> None:
    spec = {key: value for key, value in SPEC.items() if key != "name"}
    with pytest.raises(BadWeights, match="names are not those of custom"):
        Model(spec).load_published({"a": torch.zeros(1)})
    with pytest.raises(BadWeights, match="has no dialect 'ours'; there are: authors, timm, transformers, formery"):
        Model(SPEC).to_published("ours")


def test_dtype_and_values_of_the_model_stay(theirs: dict[str, Tensor]) -> None:
    model = fresh().to(torch.float64)
    model.load_published(theirs)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in model.parameters())
    half = fresh()
    half.load_published({name: tensor.half() for name, tensor in theirs.items()})
    assert {p.dtype for p in half.parameters()} == {torch.float32}


def test_a_model_without_values_takes_the_checkpoints(source: Model, theirs: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        model = Model(SPEC).eval()
    model.load_published(theirs)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert same(model, source)


class Danger:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("danger_was_here"),))


def test_code_in_a_pickle_is_not_run(
    theirs: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": theirs, "args": Danger()}, tmp_path / "bad.pth")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Danger(), protocol=2))
    for name in ("bad.pth", "plain.bin"):
        with pytest.raises(BadFile, match=f"{name} holds objects of .* which only its code could read; save the state"):
            fresh().load_published(tmp_path / name)
    assert not (tmp_path / "danger_was_here").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "short.safetensors").write_bytes(b"\x10")
    (tmp_path / "text.pth").write_text("weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    (tmp_path / "empty").mkdir()
    cases = {
        "absent.safetensors": (BadFile, "does not exist"),
        "absent.pth": (BadFile, "does not exist"),
        "short.safetensors": (BadFile, "truncated or damaged"),
        "text.pth": (BadFile, r"it is a text \('weights'\); get the file itself"),
        "list.pth": (BadFile, "holds list, not a state dict"),
        "none.pth": (BadWeights, "holds no tensors"),
        "empty": (BadFile, "holds no weights"),
    }
    for name, (kind, message) in cases.items():
        with pytest.raises(kind, match=message) as caught:
            fresh().load_published(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadFile, match="holds 4 files of weights; name one file"):
        fresh().load_published(tmp_path)


def test_shards_outside_their_folder(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}')
    with pytest.raises(BadFile, match="outside its folder"):
        fresh().load_published(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["[]", "3", "null", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', '{"weight_map": {}}', "[" * 100_000],
    ids=range(8),
)
def test_an_index_that_is_none(index: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.index.json").write_text(index)
    with pytest.raises(BadFile, match=r"lists no shards|is nested too deep") as caught:
        fresh().load_published(tmp_path)
    assert "\n" not in str(caught.value)


def test_which_file_of_a_folder(source: Model, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    """Shards of pickles by their index; `model.safetensors` before its twins in other formats."""
    names = sorted(theirs)
    halves = {"a.bin": names[:9], "b.bin": names[9:]}
    for file, part in halves.items():
        torch.save({name: theirs[name] for name in part}, tmp_path / file)
    weight_map = {name: file for file, part in halves.items() for name in part}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    model = fresh()
    assert model.load_published(tmp_path) == []
    assert same(model, source)
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    save_file(theirs, tmp_path / "model.safetensors")
    model = fresh()
    model.load_published(tmp_path)
    assert same(model, source)


def test_rewritten_models_take_no_published_weights(theirs: dict[str, Tensor]) -> None:
    model = fresh()
    model.plans.append({"kind": "some"})
    with pytest.raises(BadWeights, match="before rewriting"):
        model.load_published(theirs)
    with pytest.raises(BadWeights, match="rewritten"):
        model.to_published("authors")


def test_create_model_with_weights(source: Model, theirs: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(theirs, tmp_path / "w.safetensors")
    path = tmp_path / "w.safetensors"
    assert same(formery.create_model(SPEC, pretrained=path).eval(), source)
    other = formery.create_model(SPEC, pretrained=path, num_classes=2).eval()
    assert other.num_classes == 2
    assert torch.equal(
        other.body.stages[0].blocks[0].channel.expand.weight, source.body.stages[0].blocks[0].channel.expand.weight
    )
    bigger = formery.create_model(SPEC, pretrained=path, img_size=64)
    assert bigger.body.stages[1].position.table.shape == (8, 8, 16)
    maps = formery.create_model(SPEC, pretrained=path, features_only=True).eval()(torch.zeros(1, 3, 32, 32))
    assert [m.shape[1] for m in maps] == [8, 16]
    with pytest.raises(BadFile, match=r"pretrained='hf-hub:timm/poolformer_s12'"):
        formery.create_model("sail/poolformer_s12", pretrained=True)
    with pytest.raises(BadFile, match="does not exist"):
        formery.create_model("poolformer_s12", pretrained=tmp_path / "no.safetensors")


def test_create_model_refuses_weights_that_it_would_leave_out(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    """Whoever asks for a model alone never sees the names that had no use."""
    path = tmp_path / "w.safetensors"
    save_file(theirs | {"head_dist.weight": torch.zeros(4, 16)}, path)
    with pytest.raises(BadWeights, match=r"metaformer has no use for head_dist\.weight of these authors weights"):
        formery.create_model(SPEC, pretrained=path)
    assert fresh().load_published(path) == ["head_dist.weight"]


def test_transformers_weights_without_a_use_are_refused(tmp_path: Path) -> None:
    transformers.save(Model(VIT), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"vit.extra.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    for load in (transformers.load, lambda folder: formery.create_model(str(folder))):
        with pytest.raises(BadWeights, match=r"vit has no use for vit\.extra\.bias of these"):
            load(tmp_path)
    tensors["vit.pooler.dense.bias"] = torch.zeros(3)  # what its dialect leaves out on purpose
    save_file(tensors, tmp_path / "model.safetensors")
    assert transformers.load(tmp_path).name == "vit"


def test_create_model_from_what_formery_saved(source: Model, tmp_path: Path) -> None:
    source.save_pretrained(tmp_path / "a")
    folder = str(tmp_path / "a")
    assert same(formery.create_model(folder).eval(), source)
    assert formery.create_model(folder, num_classes=3).num_classes == 3
    assert formery.create_model(folder, global_pool="max").head.pool == "max"
    assert formery.create_model(folder, img_size=64).body.stages[1].position.table.shape == (8, 8, 16)
    assert formery.create_model(folder, in_chans=1).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 4)
    assert len(formery.create_model(folder, features_only=True, out_indices=[1]).eval()(torch.zeros(1, 3, 32, 32))) == 1
    dropping = formery.create_model(folder, drop_path_rate=0.1).eval()
    assert dropping.resolved["body"]["stages"][1]["blocks"][0]["scheme"]["drop_path"] == 0.1
    assert same(dropping, source)
    with pytest.raises(BadSpec, match="built as it was saved, so it takes no override"):
        formery.create_model(folder, override={"body.mixer": "pooling"})
    with pytest.raises(BadWeights, match="holds a saved metaformer, not poolformer_s12; use create_model"):
        formery.create_model("poolformer_s12", pretrained=folder)
