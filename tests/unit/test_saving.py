"""Saved models: whole or refused in one line, bit for bit, ties kept, nothing run, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from formery import registry
from formery.errors import BadFile, BadWeights, CannotRewrite, FormeryError, Unwritable
from formery.files import atomic, read_json, write_json
from formery.model import Model
from formery.saving import CONFIG, WEIGHTS, blank, loads_as_model

TEXT: dict[str, Any] = {
    "stem": {"kind": "tokens", "dim": 16, "vocab": 11},
    "body": {
        "kind": "stack",
        "layout": "attention gated_deltanet",
        "blocks": {"attention": {"mixer": {"kind": "attention", "heads": 2}}},
    },
    "head": {"kind": "next_token", "tie": True},
}
IMAGE: dict[str, Any] = {
    "stem": {"kind": "conv", "dim": 8, "img_size": 32},
    "body": {
        "kind": "pyramid",
        "dims": [8, 16],
        "depths": [1, 1],
        "mixer": ["pooling", "random"],
        "scheme": {"kind": "pre", "norm": "batch"},
    },
    "head": {"kind": "classes", "num_classes": 3},
}
IDS = torch.arange(10).reshape(2, 5)


@pytest.fixture
def model() -> Model:
    return Model(TEXT).eval()


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    """A saved model."""
    model.extra = {"classes": ["a", "größe"]}
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def refusal(folder: Path, error: type[FormeryError] = BadFile) -> str:
    """What is said of a folder that cannot be loaded."""
    with pytest.raises(error) as caught:
        Model.from_pretrained(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert type(caught.value) is error
    return message


def edit(folder: Path, **entries: Any) -> None:
    """Change entries of the config by hand."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | entries))


# ------------------------------------------------------------------------------------------------ round trips


def test_two_files_are_a_model(model: Model, folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert loads_as_model(folder)
    loaded = Model.from_pretrained(folder).eval()
    assert torch.equal(loaded(IDS), model(IDS))
    assert (loaded.spec, loaded.resolved, loaded.plans, loaded.extra) == (TEXT, model.resolved, [], model.extra)
    config = read_json(folder / CONFIG)
    assert (config["library"], config["spec"], config["resolved"]) == ("formery", TEXT, model.resolved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", [TEXT, IMAGE], ids=["text", "image"])
def test_every_number_comes_back_in_its_dtype(spec: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    model = Model(spec).to(dtype).eval()
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert theirs[name].dtype == tensor.dtype, name
        assert torch.equal(theirs[name], tensor)
        assert theirs[name].stride() == tensor.stride()
        assert theirs[name].data_ptr() % 64 == 0
    assert all(p.requires_grad for p in loaded.parameters())
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_a_model_of_several_dtypes_stays_one(model: Model, tmp_path: Path) -> None:
    model.body.to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path)
    assert loaded.body.blocks[0].mixer.qkv.weight.dtype == torch.bfloat16  # type: ignore[union-attr, index]
    assert loaded.stem.embed.weight.dtype == torch.float32  # type: ignore[union-attr]


def test_tied_weights_are_saved_once_and_tied_again(model: Model, folder: Path) -> None:
    names = load_file(folder / WEIGHTS).keys()
    assert len({"stem.embed.weight", "head.scores.weight"} & names) == 1
    loaded = Model.from_pretrained(folder)
    assert loaded.head.scores.weight is loaded.stem.embed.weight  # type: ignore[union-attr]
    assert len(list(loaded.parameters())) == len(list(model.parameters()))
    with torch.no_grad():
        loaded.stem.embed.weight.add_(1.0)  # type: ignore[operator, union-attr]
    assert not torch.equal(loaded(IDS), model(IDS))


def test_saving_again_replaces_both(folder: Path) -> None:
    other = Model({**TEXT, "head": "next_token"}).eval()
    other.save_pretrained(folder)
    assert torch.equal(Model.from_pretrained(folder).eval()(IDS), other(IDS))
    other.save_pretrained(folder)
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_tensors_that_share_memory_without_being_tied_are_saved_each(tmp_path: Path) -> None:
    model = Model({**TEXT, "head": "next_token"}).eval()
    model.head.scores.weight = torch.nn.Parameter(model.stem.embed.weight.detach())  # type: ignore[union-attr]
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(IDS), model(IDS))
    assert loaded.head.scores.weight is not loaded.stem.embed.weight  # type: ignore[union-attr]


def test_models_without_memory_have_shapes_alone() -> None:
    with blank():
        model = Model(TEXT)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert {n: t.shape for n, t in model.state_dict().items()} == {
        n: t.shape for n, t in Model(TEXT).state_dict().items()
    }
    assert torch.zeros(2).normal_().any()  # outside, draws are draws


# ------------------------------------------------------------------------------------------------ damage


def test_missing_files(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(tmp_path / WEIGHTS)
    assert refusal(folder) == f"{folder / WEIGHTS} does not exist"
    (folder / CONFIG).unlink()
    assert refusal(folder) == f"{folder / CONFIG} does not exist"
    assert not loads_as_model(folder)
    assert refusal(tmp_path / "nothing").startswith(
        f"{tmp_path / 'nothing'} does not exist; a saved model is a folder with"
    )
    assert refusal(tmp_path / WEIGHTS).startswith(f"{tmp_path / WEIGHTS} is a file; a saved model is a folder with")


@pytest.mark.parametrize(
    "change", [lambda b: b[:-8], lambda b: b[:20], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])]
)
def test_weights_that_were_altered(folder: Path, change: Any) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(change(weights.read_bytes()))
    assert refusal(folder) == f"{weights} is not the file that {CONFIG} was saved with: truncated, altered or exchanged"


def test_weights_of_another_model(folder: Path, tmp_path: Path) -> None:
    Model(TEXT).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / WEIGHTS).replace(folder / WEIGHTS)
    assert "is not the file that config.json was saved with" in refusal(folder)


@pytest.mark.parametrize("key", ["spec", "resolved", "plans"])
def test_configs_that_were_edited(folder: Path, key: str) -> None:
    """What shapes cannot show is vouched for: here, the number of heads."""
    changed = read_json(folder / CONFIG)[key]
    if key == "resolved":
        changed["body"]["blocks"][0]["mixer"]["heads"] = 4
    elif key == "spec":
        changed["body"]["blocks"]["attention"]["mixer"]["heads"] = 4
    else:
        changed.append({"kind": "fold"})
    edit(folder, **{key: changed})
    assert refusal(folder) == (
        f"{folder / CONFIG} was edited after saving; put it back, load the model, change that "
        "(model.extra has its labels) and call save_pretrained"
    )


def test_labels_are_changed_in_the_model(folder: Path) -> None:
    edit(folder, extra={"classes": ["b"]})
    assert "(model.extra has its labels) and call save_pretrained" in refusal(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"library": "other"}, "is not a formery model's; for others, create a model and use load_published"),
        ({"format": 2}, "has format 2, this formery reads 1; update formery"),
        ({"plans": None}, "lacks 'plans'; it was edited or is damaged"),
        ({"sha256": 3}, "lacks 'sha256'; it was edited or is damaged"),
    ],
)
def test_configs_of_another_kind(folder: Path, entries: dict[str, Any], message: str) -> None:
    edit(folder, **entries)
    assert refusal(folder) == f"{folder / CONFIG} {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON (line 1: "),
        ("[]", "is not a formery model's"),
        ("", "is not JSON (line 1: "),
        ("[" * 100_000, "is nested too deep"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_configs_that_are_none(folder: Path, text: str | bytes, message: str) -> None:
    (folder / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refusal(folder)
    assert not loads_as_model(folder)


@pytest.mark.parametrize("plan", [{"kind": "fodl"}, {"kind": 3}, {}, "fold", None])
def test_plans_of_no_known_kind(model: Model, plan: Any, tmp_path: Path) -> None:
    model.plans = [plan]
    model.save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "no rewrite is called 'fodl'" in message if plan == {"kind": "fodl"} else "a plan names its kind" in message


class Refuses:
    """A rewrite that does not fit."""

    @staticmethod
    def perform(model: Model, plan: dict[str, Any]) -> None:
        raise CannotRewrite("there is nothing to fold")


def test_plans_that_do_not_fit(model: Model, tmp_path: Path) -> None:
    registry.register("rewrite", "refuses", Refuses)
    try:
        model.plans = [{"kind": "refuses"}]
        model.save_pretrained(tmp_path)
        assert refusal(tmp_path) == f"{tmp_path / CONFIG}: there is nothing to fold"
    finally:
        registry.unregister("rewrite", "refuses")


def test_specs_that_this_formery_does_not_know(model: Model, tmp_path: Path) -> None:
    model.resolved["body"]["blocks"][0]["mixer"] = {"kind": "from_the_future"}
    model.save_pretrained(tmp_path)
    assert f"{tmp_path / CONFIG}: body.blocks.0.mixer: no mixer is called 'from_the_future'" in refusal(tmp_path)


def test_tensors_that_do_not_fit_are_listed(model: Model, tmp_path: Path) -> None:
    tensors = model.state_dict()
    kept: dict[str, Tensor] = {
        n: t.clone() for n, t in tensors.items() if n not in ("head.scores.weight", "head.norm.weight")
    }
    kept["body.blocks.0.mixer.out.bias"] = torch.zeros(3)
    kept["extra"] = torch.zeros(1)
    from formery.saving import put

    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with pytest.raises(BadWeights) as caught:
        put(model, kept, "the file")
    assert str(caught.value) == (
        "the file does not fit custom: 1 missing: head.norm.weight; 1 unknown: extra; "
        "1 of another shape: body.blocks.0.mixer.out.bias is [3], expected [16]"
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# ------------------------------------------------------------------------------------------------ writing


def test_what_cannot_be_written_is_said_and_leaves_nothing(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unwritable, match=f"cannot write {tmp_path / 'file' / WEIGHTS}: .*; choose another place"):
        model.save_pretrained(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_save_that_breaks_off_leaves_what_was_there(
    model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def breaks(tensors: Any, path: Path, metadata: Any) -> None:
        save_file({"half": torch.zeros(3)}, path)
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", breaks)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_files_and_folders_are_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"

    def write(names: list[str]) -> None:
        with atomic(target) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text("x" if name != "fault" else 1 / 0)  # type: ignore[arg-type]

    with pytest.raises(ZeroDivisionError):
        write(["half", "fault"])
    assert list((tmp_path / "deep").iterdir()) == []
    write(["one"])
    with pytest.raises(Unwritable, match="it is a folder with files in it; choose another place, or empty it"):
        write(["two"])
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["target"]
    assert [p.name for p in target.iterdir()] == ["one"]
    with pytest.raises(Unwritable, match="cannot write"), atomic(tmp_path / "never"):
        pass


def test_json_is_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": [1, 2]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "größe": [\n    1,\n    2\n  ]\n}\n'
    assert read_json(tmp_path / "a.json") == {"größe": [1, 2]}
    with pytest.raises(BadFile, match="does not exist"):
        read_json(tmp_path / "b.json")
    with pytest.raises(BadFile, match="cannot read"):
        read_json(tmp_path)


# ------------------------------------------------------------------------------------------------ the hub


def test_the_hub_is_asked_where_it_is_named_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repo: str, revision: str | None = None, allow_patterns: Any = None) -> str:
        asked.append((repo, revision))
        assert not any(pattern.endswith((".bin", ".py", ".pkl")) for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for source in ("hf-hub:owner/name", "hf_hub:owner/name"):
        assert Model.from_pretrained(source, revision="v1").resolved["stem"]["kind"] == "tokens"
    assert asked == [("owner/name", "v1")] * 2
    for source in ("owner/name", "./owner/name", "name", "a/b/c", "/owner/name", "~/name"):
        with pytest.raises(BadFile, match="does not exist; a saved model is a folder"):
            Model.from_pretrained(source)
    assert len(asked) == 2


def test_a_hub_that_does_not_answer_is_said() -> None:
    with pytest.raises(BadFile, match="the hub did not give hf-hub:owner/no-such-model: "):
        Model.from_pretrained("hf-hub:owner/no-such-model")


def test_uploads_are_the_two_files(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
            sent.update(repo=repo_id, private=private)

        def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> str:
            sent.update(files=sorted(p.name for p in Path(folder_path).iterdir()), message=commit_message)
            return "https://hub/commit"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert model.push_to_hub("owner/name", private=True) == "https://hub/commit"
    assert sent == {"repo": "owner/name", "private": True, "files": [CONFIG, WEIGHTS], "message": "Upload model"}
