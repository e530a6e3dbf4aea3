"""Anatomy and rewrites of timm's and transformers' models."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from typing import Any

import tests.tvshim  # noqa: F401  # before timm

import pytest
import torch
from torch import Tensor, nn

from formery import rewrites
from formery.errors import CannotRewrite
from formery.measure import count_macs
from formery.rewrites import anatomy
from formery.rewrites.checks import small
from tests.unit.rewrites_families import FAMILIES, error, model_of

timm = importlib.import_module("timm")
transformers = importlib.import_module("transformers")

drop = rewrites.find("drop")
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4, "num_classes": 7}


def timm_vit(**more: Any) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **SIZES | more)


def convnext(**more: Any) -> nn.Module:
    return timm.create_model("convnext_atto", depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=7, **more)


def metaformer(kind: str) -> nn.Module:
    from timm.models import metaformer as module

    sizes = {"depths": [1, 2, 1, 1], "dims": [8, 16, 32, 64], "num_classes": 7}
    if kind == "poolformer":
        return module.MetaFormer(
            downsample_norm=None, mlp_act=nn.GELU, mlp_bias=True, norm_layers=module.GroupNorm1,
            layer_scale_init_values=0.1, res_scale_init_values=None, use_mlp_head=False, **sizes,
        )  # fmt: skip
    mixers = [module.SepConv] * 2 + [module.Attention] * 2
    norms = [module.LayerNorm2dNoBias] * 2 + [module.LayerNormNoBias] * 2
    return module.MetaFormer(token_mixers=mixers, norm_layers=norms, **sizes)


def hf_vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8,
        num_labels=7,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


MODELS: dict[str, Any] = {
    "timm vit": lambda: timm_vit(init_values=0.1, reg_tokens=2),
    "timm vit averaged": lambda: timm_vit(global_pool="avg", fc_norm=True, class_token=False),
    "timm convnext": convnext,
    "timm convnext 1x1": lambda: convnext(conv_mlp=True),
    "timm convnext v2": lambda: convnext(use_grn=True),
    "timm poolformer": lambda: metaformer("poolformer"),
    "timm caformer": lambda: metaformer("caformer"),
    "hf vit": hf_vit,
    "hf llama": llama,
}
FOLDED = {  # scales and recentrings that are possible
    "timm vit": 9,
    "timm vit averaged": 1,
    "timm convnext": 5,
    "timm convnext 1x1": 5,
    "timm convnext v2": 5,
    "timm poolformer": 5,
    "timm caformer": 0,
    "hf vit": 1,
    "hf llama": 0,
}


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def model_for(name: str) -> nn.Module:
    """The host's model with noise on every parameter, float64, in evaluation."""
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def data_for(name: str) -> Tensor:
    return small.tokens(2, 12) if name == "hf llama" else small.images(2, 32)


def scores(model: nn.Module, data: Tensor) -> Tensor:
    with torch.no_grad():
        output = model(data)
    return getattr(output, "logits", output)


def test_anatomy_is_complete(name: str) -> None:
    """Every parameter of every block belongs to a sublayer, its norm or its scale, or is a factor on the stream."""
    model = model_for(name)
    parts = anatomy.of(model)
    assert parts.library == name.split()[0].replace("hf", "transformers")
    for _, block in parts.blocks():
        known = [p for sub in block.sublayers for p in (sub.path, sub.norm, sub.scale) if p]
        for parameter, _ in model.get_submodule(block.path).named_parameters():
            full = f"{block.path}.{parameter}"
            assert any(f"{full}.".startswith(f"{path}.") for path in known) or "res_scale" in full, full
        for sub in block.sublayers:
            for path in (*sub.reads, *sub.writes):
                assert isinstance(model.get_submodule(path), nn.Linear | nn.Conv2d)


def test_fold(name: str) -> None:
    model, data = model_for(name), data_for(name)
    before = scores(model, data)
    model, plan, report = rewrites.apply(model, "fold", data, recentre=True)
    assert error(scores(model, data), before) < 1e-10
    assert len(plan["steps"]) == FOLDED[name]
    assert report["difference"] < 1e-10
    assert rewrites.find("fold").decide(model, recentre=True)["steps"] == []
    assert getattr(model, "plans", []) == ([plan] if plan["steps"] else [])


@pytest.mark.parametrize("unit", ["block", "mixer", "joint"])
def test_drop(name: str, unit: str) -> None:
    """Parameters and work are gone, plans perform again elsewhere, and what added nothing is not missed."""
    model, data = model_for(name), data_for(name)
    if "convnext" in name and unit != "block":
        with pytest.raises(CannotRewrite, match="drop blocks"):
            drop.decide(model, data, unit=unit, count=1)
        return
    twin, macs = copy.deepcopy(model), count_macs(model, data[:1]).total
    parameters = sum(p.numel() for p in model.parameters())
    model, plan, report = rewrites.apply(model, "drop", data, unit=unit, count=2)
    drop.perform(twin, plan)
    assert torch.equal(scores(twin, data), scores(model, data))
    assert sum(p.numel() for p in model.parameters()) < parameters
    assert report["macs"] == {"before": macs, "after": count_macs(model, data[:1]).total}
    pooling = "poolformer" in name and unit != "block"  # pooling has neither parameters nor products
    assert report["macs"]["after"] < macs or pooling
    model.train()
    output = model(data)
    getattr(output, "logits", output).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model, _, _ = rewrites.apply(model.eval(), "drop", data, unit=unit, count=1)
    assert len(model.plans) == 2


@torch.no_grad()
@pytest.mark.parametrize("family", ["timm vit", "timm caformer", "hf vit", "hf llama"])
def test_dropping_zeros_changes_nothing(family: str) -> None:
    model, data = model_for(family), data_for(family)
    subs = [sub for _, _, sub in anatomy.of(model).sublayers()]
    for block in (subs[2], subs[5]):
        for parameter in model.get_submodule(block.writes[0]).parameters():
            parameter.zero_()
    factors = [p for n, p in model.named_parameters() if "res_scale" in n]
    for factor in factors:
        factor.fill_(1)
    before = scores(model, data)
    model, plan, _ = rewrites.apply(model, "drop", data, unit="joint", count=2)
    assert {f"{step['block']}.{step['sublayers'][0]}" for step in plan["steps"]} == {subs[2].path, subs[5].path}
    assert torch.equal(scores(model, data), before)


def decoded(model: Any, ids: Tensor) -> Tensor:
    past, pieces = None, []
    with torch.no_grad():
        for piece in ids.split([5, 1, 1, ids.shape[1] - 7], dim=1):
            output = model(piece, past_key_values=past, use_cache=True)
            past = output.past_key_values
            pieces.append(output.logits)
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("layers", [[0], [2], [0, 1], [1, 3]])
@pytest.mark.parametrize("sublayers", [["self_attn"], ["mlp"], ["self_attn", "mlp"]])
def test_llamas_cache_after_a_drop(layers: list[int], sublayers: list[str]) -> None:
    """Layers that are left take the cache's places anew: decoding equals the whole, the first layer gone too."""
    model, data = model_for("hf llama"), data_for("hf llama")
    steps = [{"block": f"model.layers.{i}", "sublayers": sublayers} for i in layers]
    drop.perform(model, drop.decide(model, data, count=1) | {"steps": steps})
    assert error(decoded(model, data), scores(model, data)) < 1e-10
    whole = len(sublayers) == 2
    assert model.config.num_hidden_layers == len(model.model.layers) == (4 - len(layers) if whole else 4)
    assert model.config.drop_attn_list == (layers if sublayers == ["self_attn"] else [])
    assert model.config.drop_mlp_list == (layers if sublayers == ["mlp"] else [])
    attention = [layer.self_attn for layer in model.model.layers if hasattr(layer, "self_attn")]
    assert [layer.layer_idx for layer in attention] == list(range(len(attention)))
    with torch.no_grad():
        hidden = model(data, output_hidden_states=True).hidden_states
        past = model(data, use_cache=True).past_key_values
    assert len(hidden) == len(model.model.layers) + 1
    assert sum(layer.is_initialized for layer in past.layers) == len(attention)
    mask = torch.ones_like(data)
    generated = model.generate(data, attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert torch.equal(generated[:, 12], scores(model, data)[:, -1].argmax(-1))


def test_llama_without_blocks_is_a_smaller_llama(tmp_path: Any) -> None:
    """Whole blocks gone: transformers alone saves and loads what is left."""
    model, data = model_for("hf llama"), data_for("hf llama")
    model, _, _ = rewrites.apply(model, "drop", data, unit="block", count=2)
    model.save_pretrained(tmp_path)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.dtype == torch.float64
    assert torch.equal(scores(loaded, data), scores(model, data))


def test_llama_keeps_one_attention() -> None:
    """The length of the past is read from an attention layer's cache."""
    model, data = model_for("hf llama"), data_for("hf llama")
    names = set(model.state_dict())
    steps = [{"block": f"model.layers.{i}", "sublayers": ["self_attn"]} for i in range(4)]
    with pytest.raises(CannotRewrite, match="keep one"):
        drop.perform(model, drop.decide(model, data, count=1) | {"steps": steps})
    assert set(model.state_dict()) == names
    assert model.config.num_hidden_layers == 4


def test_what_is_not_known_is_refused_by_name() -> None:
    """Another model, another block, another attention: the class is named, nothing is skipped."""
    for make, message in (
        (lambda: timm.create_model("resnet18"), "timm.models.resnet.ResNet is not known"),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224"), "VisionTransformerDistilled is not known"),
        (lambda: _with_block("ResPostBlock"), "blocks.0: rewrites do not know the block .*ResPostBlock"),
        (lambda: timm_vit(attn_layer="diff"), "blocks.0.attn: rewrites do not know the sublayer .*DiffAttention"),
        (_with_shortcut, "shortcut changes the map"),
    ):
        with pytest.raises(CannotRewrite, match=message):
            anatomy.of(make())


def _with_shortcut() -> nn.Module:
    model = convnext()
    model.stages[0].blocks[0].shortcut = nn.Conv2d(8, 8, 1)  # type: ignore[index, union-attr]
    return model


def _with_block(kind: str) -> nn.Module:
    from timm.models import vision_transformer

    return timm_vit(block_fn=getattr(vision_transformer, kind))


def test_anatomy_of_our_own() -> None:
    """Formery's families: every block's parameters are accounted for, and paths lead somewhere."""
    for family in FAMILIES:
        model = model_of(family)
        parts = anatomy.of(model)
        for stage, block in parts.blocks():
            known = [p for sub in block.sublayers for p in (sub.path, sub.norm, sub.scale) if p]
            for parameter, _ in model.get_submodule(block.path).named_parameters():
                assert any(f"{block.path}.{parameter}.".startswith(f"{path}.") for path in known)
            assert stage.width > 0
        for stage in parts.stages:
            for source in stage.sources:
                owner, _, last = source.path.rpartition(".")
                assert hasattr(model.get_submodule(owner), last)
            assert all(leaves.norm is None or model.get_submodule(leaves.norm) for leaves in stage.exits)
    heads = [
        (sub.heads, sub.kv_heads) for *_, sub in anatomy.of(model_of("decoder")).sublayers() if sub.role == "mixer"
    ]
    assert heads == [(4, 2)] * 4


def test_anatomy_imports_neither_host() -> None:
    """Hosts are known by name; their libraries are imported by whoever built the model."""
    code = (
        "import sys; from formery.rewrites import anatomy, drop, fold, foreign; "
        "from formery.rewrites.anatomy import timm_models, transformers_models; "
        "assert not {'timm', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
