"""Image models under published weights compute what the published code computed: recorded outputs, float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import formery
from formery.bodies.blocks.block import Block
from formery.context import NOTHING
from formery.model import Model
from formery.published import recognise
from formery.spec import Place, build
from formery.systems import convnext_pyramid
from formery.systems.vision import convnext, efficientformer
from formery.weights import Dialect, to_ours
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale. Measured: at most 2e-6."""


@torch.no_grad()
def outputs_of(model: Model, images: Tensor, names: dict[str, list[int]]) -> dict[str, Tensor]:
    """Recorded outputs by name, with their shapes: scores, the stem's map, maps (or their tokens) after stages."""
    outputs = {"logits": model(images)}
    maps = model.forward_intermediates(images, intermediates_only=True) if len(names) > 1 else []
    for name in names:
        if name in ("stem", "patch_embed"):
            outputs[name] = model.stem(images, NOTHING)[0].movedim(-1, 1)
        elif name != "logits":
            found = maps[int(name[-1])]
            outputs[name] = found if len(names[name]) == 4 else found.flatten(2).mT
    return outputs


CASES = [  # golden, variant, dialect, size of the image
    ("poolformer_s12", "poolformer_s12", "authors", 64),
    ("poolformer_s12_timm", "poolformer_s12", "timm", 64),
    ("metaformer_id_s12", "metaformer_id_s12", "authors", 64),
    ("metaformer_ppaa_s12", "metaformer_ppaa_s12", "authors", 224),
    ("convnext_tiny", "convnext_tiny", "authors", 64),
    ("convnext_tiny_timm", "convnext_tiny", "timm", 64),
    ("convnext_atto_timm", "convnext_atto", "timm", 64),
    ("convnext_isotropic_small", "convnext_isotropic_small", "authors", 64),
    ("crossvit_tiny", "crossvit_tiny", "authors", 240),
    ("crossvit_tiny_in224", "crossvit_tiny", "authors", 224),
    ("crossvit_tiny_timm", "crossvit_tiny", "timm", 240),
    ("efficientformer_l1", "efficientformer_l1", "authors", 224),
    ("efficientformer_l1_timm", "efficientformer_l1", "timm", 224),
    ("efficientformerv2_s0", "efficientformerv2_s0", "authors", 224),
    ("efficientformerv2_s0_timm", "efficientformerv2_s0", "timm", 224),
]


@pytest.mark.parametrize(("golden", "variant", "dialect", "side"), CASES, ids=[case[0] for case in CASES])
def test_equals_what_was_recorded(golden: str, variant: str, dialect: str, side: int) -> None:
    facts = goldens.facts(golden)
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model(variant).eval()
    assert recognise(model, theirs).name == dialect
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    assert model.num_classes == 10  # adopted from the checkpoint
    outputs = outputs_of(model, goldens.normal((1, 3, side, side)), facts["outputs"])
    assert goldens.worst_error(golden, outputs) < WANTED
    assert_same(model.to_published(dialect), theirs)
    if variant == "poolformer_s12":  # the two goldens pin the two orders of norm and pooling
        assert model.resolved["head"]["order"] == {"authors": "norm_pool", "timm": "pool_norm"}[dialect]


def test_a_block_of_convnext() -> None:
    block = build("block", {"mixer": "depthwise_conv", "scheme": BLOCK_SCHEME}, 16, place=Place(grid=(9, 9)))
    assert isinstance(block, Block)
    names = convnext_pyramid.AUTHORS | {convnext.SCALE: "gamma"}
    rules = convnext_pyramid.blocks("blocks.{j}", "blocks.{j}", names)
    theirs = {f"blocks.0.{n}": t for n, t in goldens.state_from(goldens.facts("convnext_block")["tensors"]).items()}
    shapes = {f"blocks.0.{name}": tensor.shape for name, tensor in block.state_dict().items()}
    state, wrong = to_ours(theirs, shapes, Dialect("authors", rules))
    assert wrong == []
    block.load_state_dict({name.removeprefix("blocks.0."): tensor for name, tensor in state.items()})
    with torch.no_grad():
        y = block(goldens.normal((1, 16, 9, 9)).movedim(1, -1)).movedim(-1, 1)
    assert goldens.worst_error("convnext_block", {"y": y}) < WANTED


BLOCK_SCHEME = {"kind": "single", "norm": convnext_pyramid.NORM, "scale": 1e-6}


def test_attention_of_efficientformer() -> None:
    """Its rows stand by head, and its biases by distance."""
    golden = "efficientformer_attention"
    mixer = build(
        "mixer",
        {"kind": "biased_attention", "heads": 4, "key_dim": 8, "value_dim": 32},
        48,
        place=Place(grid=(5, 5)),
    )
    shapes = {f"mixer.{name}": tensor.shape for name, tensor in mixer.state_dict().items()}
    theirs = {f"mixer.{n}": t for n, t in goldens.state_from(goldens.facts(golden)["tensors"]).items()}
    spec = {"heads": 4, "key_dim": 8, "value_dim": 32}
    state, wrong = to_ours(theirs, shapes, Dialect("authors", tuple(efficientformer.attention("mixer", "mixer", spec))))
    assert wrong == []
    mixer.load_state_dict({name.removeprefix("mixer."): tensor for name, tensor in state.items()})
    x = goldens.normal((1, 25, 48))
    with torch.no_grad():
        y = mixer.eval()(x.unflatten(1, (5, 5))).flatten(1, 2)
    assert goldens.worst_error(golden, {"y": y, "bias_index": mixer.position.numbers}) < WANTED


def pre_rmsnorm_vit(norm: dict[str, object]) -> dict[str, object]:
    """The small ViT that Pre-RMSNorm's goldens were recorded from, with another norm where one is asked for."""
    return {
        "name": "vit",
        "stem": {"kind": "patches", "dim": 32, "size": 4, "img_size": 16},
        "body": {
            "kind": "stack",
            "depth": 2,
            "mixer": {"kind": "attention", "heads": 4, "head_dim": 8},
            "channel": {"kind": "mlp", "hidden": 64},
            "scheme": {"kind": "pre", "norm": norm},
            "prefix": 1,
            "position": {"kind": "learned", "prefix": 0},
        },
        "head": {"kind": "classes", "num_classes": 10, "pool": "token", "norm": norm},
    }


def test_pre_rmsnorms_vit() -> None:
    golden = "pre_rmsnorm_vit_pre_ln"
    theirs = goldens.state_from(goldens.facts(golden)["tensors"])
    model = Model(pre_rmsnorm_vit({"kind": "layer", "eps": 1e-5, "affine": False})).eval()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == goldens.facts(golden)["params"]
    with torch.no_grad():
        logits = model(goldens.normal((1, 3, 16, 16)))
    assert goldens.worst_error(golden, {"logits": logits}) < WANTED
    assert_same(model.to_published("pre_rmsnorm"), theirs)


def test_pre_rmsnorms_norms() -> None:
    x = goldens.normal((3, 31), 4)
    norms = {name: build("norm", {"kind": name, "eps": 1e-5, "affine": False}, 31) for name in ("layer", "rms")}
    outputs = {f"{name}_norm": norm(x) for name, norm in norms.items()}
    recorded = goldens.recorded("pre_rmsnorm_norms")
    for name, output in outputs.items():
        head = torch.from_numpy(recorded[name]["head"])
        torch.testing.assert_close(output.flatten()[: len(head)], head, rtol=0, atol=1e-6)
