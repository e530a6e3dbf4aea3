from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import formery
from formery import formats, registry, spec
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


def test_a_model_as_a_tree(ask: Ask) -> None:
    out = ask("show", "poolformer_s12").out
    assert "poolformer_s12" in out.splitlines()[0]
    assert "11,915,176 parameters" in out
    assert "mixer pooling size=3" in out
    assert "blocks 0 to 5: 6 times" in out
    assert "stages.3 stack" in out


def test_what_is_published_of_a_model(ask: Ask) -> None:
    """Of the published one, not of one with other parts."""
    out = ask("show", "swin_tiny").out
    assert "4.49 G MACs, counted; published: flops 4.5G, params 28M, imagenet_top1 81.3" in out
    assert "formery show swin" in out
    facts = ask("show", "timm/swin_tiny_patch4_window7_224", "--json").json
    assert (facts["macs"], facts["published"]["imagenet_top1"]) == (4_490_566_656, 81.3)
    assert "published:" not in ask("show", "swin_tiny", "--set", "head.num_classes=7").out


def test_the_parameters_of_nodes_are_those_of_the_modules(ask: Ask) -> None:
    facts = ask("show", "vit_tiny", "--json").json
    model = formery.create_model("vit_tiny")
    modules = {path: sum(p.numel() for p in module.parameters()) for path, module in model.named_modules()}
    assert facts["params"] == sum(p.numel() for p in model.parameters())
    nodes = {node["path"]: node for node in facts["nodes"]}
    assert nodes["body.blocks.3.mixer"]["params"] == modules["body.blocks.3.mixer"] > 0
    assert sum(nodes[key]["params"] for key in ("stem", "body", "head")) == facts["params"]


def test_overrides_show(ask: Ask) -> None:
    out = ask("show", "poolformer_s12", "--set", "body.stages.3.mixer=attention", "--set", "head.num_classes=7").out
    assert "mixer attention" in out
    assert "num_classes=7" in out


@pytest.mark.parametrize("name", ["vit_tiny", "image.yaml", "image"])
@pytest.mark.usefixtures("shop")
def test_yaml_is_the_resolved_spec(name: str, ask: Ask) -> None:
    resolved = formats.from_yaml(ask("show", name, "--yaml").out)
    assert spec.resolve(resolved) == resolved


def test_what_yaml_prints_builds_the_same_model(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(ask("show", "vit_tiny", "--yaml").out)
    again, first = ask("show", tmp_path / "again.yaml", "--json").json, ask("show", "vit_tiny", "--json").json
    assert again["resolved"] == first["resolved"]


@pytest.mark.parametrize("role", registry.HOMES)
def test_a_part_of_every_role(role: str, ask: Ask) -> None:
    name = next(iter(registry.index(role)))
    facts = ask("show", f"{role}.{name}", "--json").json
    assert facts["says"]
    assert all(option["type"] for option in facts["options"])
    assert ask("show", f"{role}.{name}").out.startswith(f"{role} {name}")


def test_options_of_a_part_in_words(ask: Ask) -> None:
    options = {o["option"]: o for o in ask("show", "mixer.attention", "--json").json["options"]}
    assert options["qk_norm"]["type"] == "norm spec or null"
    assert options["qk_norm"]["role"] == "norm"
    assert options["heads"]["type"].startswith("int")
    assert options["window"]["default"] is None


def test_a_system_and_the_card_of_a_variant(ask: Ask) -> None:
    out = ask("show", "metaformer").out
    assert "2111.11418" in out
    assert "poolformer_s12" in out
    assert "formery verify metaformer" in out
    assert ask("show", "poolformer_s12", "--card").out == out
    assert ask("show", "metaformer", "--json").json["system"] == "metaformer"


@pytest.mark.usefixtures("shop")
def test_a_saved_model_and_what_a_rewrite_took(ask: Ask, tmp_path: Path) -> None:
    assert ask("show", "image").out.startswith("custom")
    small = tmp_path / "small"
    assert ask("shrink", "image", "--drop", 1, "--data", "digits", "--max-drop", 100, "--out", small).code == 0
    answer = ask("show", small)
    assert "rewritten by drop" in answer.out
    assert answer.out.count("taken away") == 1
    facts = ask("show", small, "--json").json
    assert [plan["kind"] for plan in facts["plans"]] == ["drop"]
    assert facts["params"] < ask("show", "image", "--json").json["params"]
    assert sum(not node["there"] for node in facts["nodes"]) >= 1
    assert all(node["there"] for node in ask("show", "image", "--json").json["nodes"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vit_tinny"], "did you mean vit_tiny"),
        (["mixer.atention"], "did you mean attention"),
        (["vit_tiny", "--set", "head.num_clases=3"], "num_classes"),
        (["vit_tiny", "--set", "head.num_classes=x"], "valid integer"),
        (["vit_tiny", "--set", "head.num_classes=-1"], "greater than or equal to 0"),
        (["vit_tiny", "--set", f"head.num_classes={10**30}"], "too large"),
        (["vit_tiny", "--set", "body.blocks.99.mixer=pooling"], "hits nothing"),
        (["vit_tiny", "--set", "body.blocks.0.mixer=[1"], "not YAML"),
        (["vit_tiny", "--set", "a", "--set", "b"], "PATH=VALUE"),
        (["vit_tiny", "--yaml", "--json"], "another form"),
        (["metaformer", "--set", "head.num_classes=3"], "go with models"),
        (["mixer.pooling", "--yaml"], "go with models"),
        (["mixer.pooling", "--card"], "no card"),
        (["nosuch", "--card"], "no system"),
        (["image", "--set", "head.num_classes=3"], "as it was saved"),
        (["garbage.onnx"], "exported model"),
        ([""], "no model is named"),
        (["."], "no saved model"),
        (["photos"], "no saved model"),
        (["words.txt"], "is no model"),
        (["nosuch/model"], "does not exist"),
        (["x" * 300], "too long"),
        (["latin.yaml"], "not UTF-8"),
        (["types.yaml"], "stem"),
        (["negative.yaml"], "stem.dim"),
        (["unknown.yaml"], "did you mean dim"),
        (["part.yaml"], "did you mean attention"),
        (["list.yaml"], "holds a list"),
        (["empty.yaml"], "holds nothing"),
        (["zero.yaml"], "not YAML"),
        (["number.json"], "holds one value"),
        (["half.json"], "not JSON"),
        (["twice.json"], "written twice"),
        (["deep.json"], "deep.json: not JSON"),
        (["python.yaml"], "not YAML"),
        (["knot.yaml"], "error"),
        (["headless.yaml"], "head missing"),
        (["recipe.yaml"], "formery train recipe.yaml"),
        (["image/model/config.json"], "give its folder"),
        (["photos/deep"], "no saved model"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_mistakes(arguments: list[str], says: str, refused: Callable[..., str]) -> None:
    assert says in refused("show", *arguments)


def test_a_model_named_like_a_folder_here_is_the_model(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit_tiny").mkdir()
    assert ask("show", "vit_tiny").code == 0


@pytest.mark.parametrize(
    "damage", ["truncated", "not json", "no weights", "altered weights", "another library", "edited"]
)
def test_damaged_models(damage: str, made: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(made / "image" / "model", folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "not json":
            config.write_text(config.read_text()[:-20])
        case "no weights":
            weights.unlink()
        case "altered weights":
            content = bytearray(weights.read_bytes())
            content[-3] ^= 1
            weights.write_bytes(content)
        case "another library":
            config.write_text(json.dumps({"model_type": "nosuch"}))
        case "edited":
            edited = json.loads(config.read_text())
            edited["resolved"]["head"]["num_classes"] = 11
            config.write_text(json.dumps(edited))
    assert str(folder) in refused("measure", folder, "--batch", 1)
