"""transformers' own models beside ours: saved folders load by their config, and our weights load back, strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before transformers

import pytest
import torch
import transformers
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    OlmoHybridConfig,
    OlmoHybridForCausalLM,
    PoolFormerConfig,
    PoolFormerForImageClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

import formery
import formery.spec
from formery.errors import BadFile, BadSpec, BadWeights, CannotExport, UnknownName
from formery.interop.transformers import config_of, load, model_types, spec_from_config
from tests.parity.agreement import (
    WANTED,
    computes_there,
    config_comes_back,
    error,
    randomised,
    saved,
    scores_agree,
    weights_go_back,
)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
GROUPED = TEXT | {"num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
}
NOPE = {"rope_type": "default", "rope_theta": None}
PRE = {"kind": "pre", "norm": {"kind": "rms", "eps": 1e-6}}
IMAGE: dict[str, Any] = {"num_labels": 5}

TEXTS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**TEXT)),
    "llama grouped": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, head_dim=12, rms_norm_eps=1e-3)),
    "llama biased": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True)),
    "llama base": lambda: LlamaForCausalLM(
        LlamaConfig(**TEXT, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    ),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=5)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen2 windows": lambda: Qwen2ForCausalLM(
        Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16)),
    "qwen3 windows": lambda: Qwen3ForCausalLM(
        Qwen3Config(**GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=2, tie_word_embeddings=True)
    ),
    "llama stretched": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, rope_parameters=dict(LLAMA3))),
    "qwen2 yarn": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, rope_parameters=dict(YARN))),
    "qwen3 yarn": lambda: Qwen3ForCausalLM(
        Qwen3Config(**GROUPED, head_dim=24, rope_parameters=YARN | {"attention_factor": 1.3, "truncate": False})
    ),
    "olmo2": lambda: Olmo2ForCausalLM(
        Olmo2Config(**GROUPED, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    ),
    "olmo3": lambda: Olmo3ForCausalLM(Olmo3Config(**GROUPED | {"num_hidden_layers": 5}, sliding_window=4)),
    "olmo3 yarn": lambda: Olmo3ForCausalLM(
        Olmo3Config(
            **TEXT,
            sliding_window=3,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            attention_bias=True,
            rope_parameters={
                "full_attention": dict(YARN),
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
            },
        )
    ),
    "olmo_hybrid": lambda: OlmoHybridForCausalLM(OlmoHybridConfig(**TEXT | {"num_hidden_layers": 4})),
    "olmo_hybrid without positions": lambda: OlmoHybridForCausalLM(
        OlmoHybridConfig(**TEXT, rope_parameters=dict(NOPE))
    ),
    "olmo_hybrid stretched": lambda: OlmoHybridForCausalLM(OlmoHybridConfig(**TEXT, rope_parameters=dict(LLAMA3))),
    "olmo_hybrid yarn": lambda: OlmoHybridForCausalLM(OlmoHybridConfig(**TEXT, rope_parameters=dict(YARN))),
    "olmo_hybrid grouped": lambda: OlmoHybridForCausalLM(
        OlmoHybridConfig(
            **TEXT,
            layer_types=["full_attention", "linear_attention", "linear_attention"],
            num_key_value_heads=2,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=10,
            linear_allow_neg_eigval=False,
            linear_conv_kernel_dim=3,
        )
    ),
}
IMAGES = {
    "poolformer": lambda: PoolFormerForImageClassification(
        PoolFormerConfig(depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 16, 32], mlp_ratio=2.0, pool_size=5, **IMAGE)
    ),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 16, 32], image_size=64, **IMAGE)
    ),
    "vit": lambda: ViTForImageClassification(
        ViTConfig(
            **{k: TEXT[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
            image_size=64,
            patch_size=16,
            layer_norm_eps=1e-4,
            hidden_act="gelu_new",
            **IMAGE,
        )
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_decoders(name: str, tmp_path: Path) -> None:
    peer = randomised(TEXTS[name]())
    model = load(saved(peer, tmp_path)).eval()
    weights_go_back(model, peer, scores_agree(model, peer, positions=True))


@pytest.mark.parametrize("name", IMAGES)
def test_image_models(name: str, tmp_path: Path) -> None:
    peer = randomised(IMAGES[name]())
    model = formery.create_model(str(saved(peer, tmp_path))).eval()
    images = torch.randn(2, 3, 64, 64)
    assert model.num_classes == 5
    with torch.no_grad():
        wanted = peer(images).logits
        assert error(model(images), wanted) < WANTED
        from_state = formery.Model(model.resolved).eval()
        from_state.load_published(peer.state_dict())  # names of modules, where those of files differ
        if name == "poolformer":  # the other two dialects adopt an epsilon that this config does not have
            assert error(from_state(images), wanted) < WANTED
    weights_go_back(model, peer, images)


def test_shards(tmp_path: Path) -> None:
    peer = randomised(TEXTS["olmo_hybrid"]())
    saved(peer, tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ids = torch.randint(3, 64, (1, 9))
    with torch.no_grad():
        assert error(load(tmp_path).eval()(ids), peer(ids).logits) < WANTED
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(BadFile, match="does not exist"):
        load(tmp_path)


def test_files_of_the_released_names(tmp_path: Path) -> None:
    """AllenAI's files have the attention layers' norms under their modules' names and convolutions of true sizes."""
    peer = randomised(TEXTS["olmo_hybrid grouped"]())
    model = load(saved(peer, tmp_path))
    names = model.to_published("transformers_files")
    assert names["model.layers.1.linear_attn.q_conv1d.weight"].shape == (16, 1, 3)
    assert names["model.layers.1.linear_attn.v_conv1d.weight"].shape == (40, 1, 3)
    assert {n for n in names if n.startswith("model.layers.0") and "norm" in n and "self" not in n} == {
        "model.layers.0.post_attention_layernorm.weight",
        "model.layers.0.post_feedforward_layernorm.weight",
    }
    again = formery.Model(model.resolved)
    assert again.load_published(names) == []
    ids = torch.randint(3, 64, (1, 9))
    with torch.no_grad():
        assert torch.equal(again.eval()(ids), model.eval()(ids))


def test_create_by_folder_and_by_name(tmp_path: Path) -> None:
    """The config decides; a name of another shape is refused; overrides come on top."""
    folder = str(saved(randomised(TEXTS["olmo_hybrid"]()), tmp_path))
    model = formery.create_model(folder)
    position = model.resolved["body"]["blocks"][3]["mixer"]["position"]
    assert position["kind"] == "rope"
    assert position["theta"] == 10000.0
    other = formery.create_model(folder, override={"body.blocks.3.mixer.position": None})
    assert other.resolved["body"]["blocks"][3]["mixer"]["position"] is None
    with pytest.raises(BadWeights, match=r"width 32 and 4 blocks, olmo_hybrid_tiny has 128 and 4; use create_model"):
        formery.create_model("olmo_hybrid_tiny", pretrained=folder)
    with pytest.raises(BadWeights, match=r"holds a olmo_hybrid, not decoder_tiny"):
        formery.create_model("decoder_tiny", pretrained=folder)
    with pytest.raises(BadSpec, match="leave pretrained out"):
        formery.create_model(folder, pretrained=folder)
    nope = formery.Model(other.resolved)
    with pytest.raises(BadWeights, match=r"body\.blocks\.3\.mixer\.position is null in olmo_hybrid, .*rope"):
        nope.load_published(folder)
    assert formery.Model(model.resolved).load_published(folder) == []


def test_create_by_name_takes_the_configs_word(tmp_path: Path) -> None:
    """The same shape, another epsilon and base: the folder's config is built, under the name."""
    sizes = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 5, "vocab_size": 256}
    config = LlamaConfig(
        **sizes, num_attention_heads=4, rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 77.0}
    )
    peer = randomised(LlamaForCausalLM(config))
    model = formery.create_model("decoder_tiny", pretrained=saved(peer, tmp_path)).eval()
    assert model.name == "decoder_tiny"
    ids = torch.randint(0, 256, (1, 12))
    with torch.no_grad():
        assert error(model(ids), peer(ids).logits) < WANTED
    with pytest.raises(BadWeights, match=r"(eps|theta) is .* in decoder_tiny"):
        formery.create_model("decoder_tiny").load_published(tmp_path)


def test_half_precision_and_ties(tmp_path: Path) -> None:
    peer = randomised(TEXTS["llama tied"]()).to(torch.bfloat16)
    saved(peer, tmp_path)
    assert {p.dtype for p in load(tmp_path).parameters()} == {torch.float32}
    model = load(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.head.scores.weight is model.stem.embed.weight
    twice = {n: t.float() for n, t in peer.state_dict().items()}
    assert "lm_head.weight" in twice  # the tied name may be there, but not say something else
    assert load(tmp_path).load_published(twice) == []
    with pytest.raises(BadWeights, match=r"lm_head\.weight differs from stem\.embed\.weight, which it is tied to"):
        load(tmp_path).load_published(twice | {"lm_head.weight": twice["lm_head.weight"] + 1})


def test_null_positions(tmp_path: Path) -> None:
    """Null and missing mean none for Olmo Hybrid and the family's base for Llama; a null base is refused there."""
    olmo = json.loads((saved(TEXTS["olmo_hybrid"](), tmp_path) / "config.json").read_text())

    def position(config: dict[str, Any]) -> Any:
        return spec_from_config(config)["body"]["blocks"]["attention"]["mixer"]["position"]

    assert position(olmo) == {"kind": "rope", "theta": 10000.0, "fraction": 1.0}
    for none in (None, {}, NOPE):
        assert position(olmo | {"rope_parameters": none}) is None
    del olmo["rope_parameters"]
    assert position(olmo) is None
    assert position(olmo | {"rope_theta": 5e5})["theta"] == 5e5
    llama = {"model_type": "llama", **TEXT}
    for config in (llama, llama | {"rope_parameters": None}, llama | {"rope_theta": 1e4, "rope_scaling": None}):
        assert spec_from_config(config)["body"]["blocks"][0]["mixer"]["position"]["theta"] == 1e4
    with pytest.raises(BadSpec, match=r"rope_theta: .* got null"):
        spec_from_config(llama | {"rope_parameters": NOPE})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_type: 'llama3' needs factor and original"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type: .*'longrope'"),
        ({"model_type": "olmo_hybrid", "rope_parameters": YARN | {"rope_theta": None}}, "rope_theta: .* got null"),
        ({"model_type": "olmo3", "rope_parameters": YARN}, "one entry for full_attention"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type: .*'linear'"),
        ({"hidden_act": "gelu"}, "hidden_act: .*'gelu'"),
        ({"hidden_size": None}, "entry of the wrong type"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "layer_types": ["a"]}, "layer_types"),
    ],
)
def test_configs_that_cannot_be_read(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        spec_from_config({"model_type": "llama", **TEXT} | change)


def test_other_configs(tmp_path: Path) -> None:
    assert {"llama", "olmo_hybrid", "vit", "poolformer", "convnext", "mistral", "qwen2", "qwen3"} <= set(model_types())
    with pytest.raises(UnknownName, match="model_type 'llamma'; did you mean llama"):
        spec_from_config({"model_type": "llamma"})
    with pytest.raises(UnknownName, match="names no model_type"):
        spec_from_config({})
    with pytest.raises(BadSpec, match="config of a llama lacks 'hidden_size'"):
        spec_from_config({"model_type": "llama", "num_attention_heads": 2})
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UnknownName, match="model_type 'gpt2'"):
        formery.create_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadFile, match="not a formery model's"):
        formery.create_model(str(tmp_path))


AUTO = {
    "decoder_tiny": transformers.AutoModelForCausalLM,
    "olmo_hybrid_tiny": transformers.AutoModelForCausalLM,
    "vit_tiny": transformers.AutoModelForImageClassification,
    "convnext_atto": transformers.AutoModelForImageClassification,
    "poolformer_s12": transformers.AutoModelForImageClassification,
}


@pytest.mark.parametrize("name", AUTO)
def test_our_variants_in_transformers(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {} if "tiny" in name and "vit" not in name else {"num_classes": 5, "img_size": 64}
    model = formery.create_model(name, **options).eval()
    inputs = torch.randn(2, 3, 64, 64) if options else torch.randint(0, 256, (2, 13))
    computes_there(model, AUTO[name], tmp_path, inputs)


@pytest.mark.parametrize("name", [*TEXTS, *IMAGES])
def test_configs_come_back(name: str, tmp_path: Path) -> None:
    config_comes_back((TEXTS | IMAGES)[name](), tmp_path)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("decoder_tiny", {"body.blocks.1.mixer": "gated_deltanet"}, "it differs in body.blocks.1.mixer"),
        ("decoder_tiny", {"body.blocks.*.mixer.position": None}, "rope_theta"),
        ("decoder_tiny", {"body.blocks.2.scheme.norm.eps": 1e-3}, r"body\.blocks\.2\.scheme\.norm\.eps would be 1e-06"),
        ("decoder_tiny", {"body.blocks.*.channel": "mlp"}, "it differs in body.blocks.0.channel"),
        ("olmo_hybrid_tiny", {"body.blocks.3.scheme": PRE}, r"scheme\.kind would be reordered, here it is pre"),
        ("vit_tiny", {"head.pool": "avg"}, "head.pool would be token, here it is avg"),
        ("poolformer_s12", {"body.stages.2.mixer": "identity"}, r"mixer\.kind would be pooling, here it is identity"),
        ("convnext_isotropic_small", {}, "isotropic"),
        ("metaformer_ppaa_s12", {}, "it differs in body.stages.2"),
    ],
)
def test_what_transformers_has_no_model_for(name: str, override: dict[str, Any], message: str) -> None:
    with torch.device("meta"):
        model = formery.create_model(name, override=override)
    with pytest.raises(CannotExport, match=message) as caught:
        config_of(model)
    assert "\n" not in str(caught.value)


def test_labels_travel(tmp_path: Path) -> None:
    model = formery.create_model("convnext_atto", num_classes=2)
    model.extra["classes"] = ["cat", "dog"]
    assert config_of(model)["id2label"] == {"0": "cat", "1": "dog"}
    model.plans.append({"kind": "fold"})
    with pytest.raises(CannotExport, match="was rewritten"):
        config_of(model)
    with pytest.raises(CannotExport, match="custom is of no system"):
        config_of(formery.Model({k: v for k, v in model.resolved.items() if k != "name"}))


def test_stretched_ropes_of_older_configs() -> None:
    """What transformers 4 wrote says the same: of Olmo 3 the full attention alone is stretched."""
    stretched = {key: value for key, value in YARN.items() if key != "rope_theta"}
    old: dict[str, Any] = {**TEXT, "rope_theta": 5e5, "rope_scaling": stretched}
    new: dict[str, Any] = {**TEXT, "rope_parameters": YARN | {"rope_theta": 5e5}}
    assert spec_from_config({"model_type": "llama"} | old) == spec_from_config({"model_type": "llama"} | new)
    olmo = {"model_type": "olmo3", **old, "num_hidden_layers": 4, "sliding_window": 4}
    mixers = [block["mixer"] for block in spec_from_config(olmo)["body"]["blocks"]]
    assert [mixer["position"]["kind"] for mixer in mixers] == ["rope", "rope", "rope", "yarn"]
    assert {mixer["position"]["theta"] for mixer in mixers} == {5e5}
    assert [mixer["window"] for mixer in mixers] == [4, 4, 4, None]
    usual = spec_from_config({"model_type": "olmo3", **TEXT})["body"]["blocks"][0]["mixer"]
    assert (usual["window"], usual["position"]["theta"]) == (4096, 5e5)


def test_a_stretched_rope_turns_less(tmp_path: Path) -> None:
    """The same weights without stretching miss the scores by far, so that the tests above would see it."""
    for name in ("llama stretched", "qwen2 yarn", "olmo_hybrid stretched", "olmo_hybrid yarn"):
        peer = randomised(TEXTS[name]())
        model = load(saved(peer, tmp_path / name)).eval()
        at = 2 if "hybrid" in name else "*"  # the last of its three layers is the one with attention
        plain = formery.spec.override(model.resolved, {f"body.blocks.{at}.mixer.position": "rope"})
        other = formery.Model(plain).eval()
        other.load_state_dict(model.state_dict())
        ids = torch.randint(3, 64, (2, 19))
        with torch.no_grad():
            assert error(other(ids), peer(ids).logits) > 100 * WANTED


@pytest.mark.parametrize(
    "kind", [(LlamaConfig, LlamaForCausalLM), (Olmo3Config, Olmo3ForCausalLM)], ids=["llama", "olmo3"]
)
def test_tokens_that_end_texts_travel(kind: tuple[Any, Any], tmp_path: Path) -> None:
    from formery.interop.transformers import save, save_for_auto, wrap
    from formery.runtime.generate import generate

    config, causal = kind
    torch.manual_seed(0)
    peer = randomised(causal(config(**TEXT | {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 5})))
    ids = [[7, 8, 9]]
    free = peer.generate(torch.tensor(ids), max_new_tokens=8, do_sample=False, eos_token_id=None)[0, 3:].tolist()
    end = next(token for token in free[1:] if token != free[0])
    wanted = free[: free.index(end) + 1]
    peer.config.eos_token_id = peer.generation_config.eos_token_id = end
    ours = load(saved(peer, tmp_path / "theirs"))
    (row,) = generate(ours, ids, max_new_tokens=8)
    assert (row.tokens, row.finish) == (wanted, "end")
    assert generate(ours, ids, max_new_tokens=8, end=[])[0].tokens == free
    assert wrap(ours).generate(torch.tensor(ids), max_new_tokens=8, do_sample=False)[0, 3:].tolist() == wanted
    save(ours, tmp_path / "back")
    save_for_auto(ours, tmp_path / "auto")
    for folder in ("back", "auto"):
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert again.generate(torch.tensor(ids), max_new_tokens=8, do_sample=False)[0, 3:].tolist() == wanted
    told = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (told["pad_token_id"], told["bos_token_id"], told["eos_token_id"]) == (1, 2, end)
    assert told["max_position_embeddings"] == peer.config.max_position_embeddings
    del ours.extra["transformers"]
    save(ours, tmp_path / "unknown")  # transformers' own defaults may lie beyond the vocabulary
    assert transformers.AutoConfig.from_pretrained(tmp_path / "unknown").eos_token_id is None
