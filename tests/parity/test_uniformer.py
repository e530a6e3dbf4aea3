"""UniFormer under published weights computes what the published code computed: recorded outputs, float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import formery
from formery.errors import BadSpec, BadWeights
from formery.inflation import inflate, load_inflated
from formery.model import Model
from formery.rewrites.drop import Drop
from formery.rewrites.fold import Fold
from formery.systems.vision import uniformer
from tests import goldens
from tests.parity.agreement import assert_same

WANTED = 1e-5
"""Of the output's scale. Measured: at most 2e-6."""


def test_small() -> None:
    facts = goldens.facts("uniformer_small__64")
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model("uniformer_small", img_size=64).eval()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    images = goldens.normal((1, 3, 64, 64))
    with torch.no_grad():
        outputs = {"features": model.forward_features(images), "logits": model(images)}
    assert goldens.worst_error("uniformer_small__64", outputs) < WANTED
    assert_same(model.to_published(), theirs)


def test_light() -> None:
    facts = goldens.facts("uniformer_xxs__128")
    theirs = goldens.state_from(facts["tensors"])
    model = formery.create_model("uniformer_xxs").eval()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    images = goldens.normal((1, 3, 128, 128), 1)
    with torch.no_grad():
        token = model._run(images, None, None, ())[0].extras["token"]
        outputs = {"cls": token, "features": model.forward_features(images), "logits": model(images)}
    assert goldens.worst_error("uniformer_xxs__128", outputs) < WANTED
    assert_same(model.to_published(), theirs)


def test_dense_with_windows() -> None:
    facts = goldens.facts("uniformer_dense_hybrid_reduced")
    theirs = goldens.state_from(facts["tensors"])
    model = Model({"name": "uniformer", **uniformer.dense([1, 1, 5, 1], [64, 128, 320, 512], window=4)}).eval()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    with torch.no_grad():
        maps = model(goldens.normal((1, 3, 96, 160), 7))
    outputs = {f"c{number}": tokens for number, tokens in enumerate(maps, start=2)}
    assert goldens.worst_error("uniformer_dense_hybrid_reduced", outputs) < WANTED
    assert_same(model.to_published(), theirs)


def test_light_models_fold_and_thin() -> None:
    """Batch norms go into the layers beside them, exactly; a block whose sublayers are gone passes tokens on."""
    model = formery.create_model("uniformer_xxs", img_size=64).double().eval()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.add_(torch.rand_like(buffer))
        before = model(images)
        plan = Fold.decide(model)
        Fold.perform(model, plan)
        torch.testing.assert_close(model(images), before, rtol=0, atol=1e-12 * before.abs().max().item())
        assert {step["do"] for step in plan["steps"]} == {"batch_norm_into_readers", "batch_norm_into_writer"}
        Drop.perform(model, Drop.decide(model, images.expand(2, -1, -1, -1), unit="mixer", count=4))
        assert model(images).isfinite().all()


def reduced_video(**options: bool) -> Model:
    """The video model that goldens were recorded from."""
    spec = uniformer.video([1, 1, 2, 1], [64, 128, 320, 512], **options)
    return Model({"name": "uniformer", **spec}).eval()


def test_video() -> None:
    facts = goldens.facts("uniformer_video_joint_reduced")
    theirs = goldens.state_from(facts["tensors"])
    model = reduced_video()
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    clip = goldens.normal((1, 3, 4, 64, 64), 4)
    with torch.no_grad():
        outputs = {"features": model.forward_features(clip), "logits": model(clip)}
    assert goldens.worst_error("uniformer_video_joint_reduced", outputs) < WANTED
    assert_same(model.to_published(), theirs)


def test_divided_attention_goes_by_the_authors_names() -> None:
    model = reduced_video(split=True, overlap=True)
    theirs = model.to_published()
    assert {"blocks3.0.t_norm.weight", "blocks4.0.t_attn.qkv.weight", "blocks4.0.t_attn.proj.bias"} <= theirs.keys()
    again = reduced_video(split=True, overlap=True)
    assert again.load_published(theirs) == []
    assert_same(again.to_published(), theirs)
    time = model.body.get_submodule("stages.2.blocks.0.sublayers.1.mixer")
    values = {name: tensor.unique().tolist() for name, tensor in time.named_parameters()}
    assert values == {"qkv.weight": [0], "qkv.bias": [0], "out.weight": [1], "out.bias": [0]}


def test_inflation() -> None:
    kernel = goldens.normal((3, 2, 3, 3), 6)
    outputs = {"mean": inflate(kernel, 5), "centre": inflate(kernel, 5, "centre")}
    assert goldens.worst_error("uniformer_inflate", outputs) < 1e-7
    with pytest.raises(BadSpec, match="is inflated to 1 frame or more"):
        inflate(kernel[0], 5)


def test_image_weights_in_a_video_model() -> None:
    image = {"name": "uniformer", **uniformer.image([1, 1, 2, 1], [64, 128, 320, 512])}
    flat = formery.create_model(image, num_classes=7)
    theirs = flat.to_published()
    video = reduced_video()
    own = video.head.fc.weight.clone()
    assert load_inflated(video, theirs) == ["head.weight", "head.bias"]
    assert torch.equal(video.head.fc.weight, own)
    found = video.to_published()
    torch.testing.assert_close(found["blocks1.0.attn.weight"].sum(2), theirs["blocks1.0.attn.weight"])
    assert torch.equal(found["blocks1.0.conv1.weight"][:, :, 0], theirs["blocks1.0.conv1.weight"])
    assert torch.equal(found["blocks3.1.attn.qkv.weight"], theirs["blocks3.1.attn.qkv.weight"])
    with pytest.raises(BadWeights, match="takes image, and image weights are inflated for videos"):
        load_inflated(flat, theirs)


def test_heads_of_another_width_are_refused(tmp_path: Path) -> None:
    """No shape shows them: the names of files do, and weights of token labelling without one are asked about."""
    model = formery.create_model("uniformer_small_plus", img_size=32)
    theirs = model.to_published()
    for name, width in (("small_plus_in1k", 32), ("small_plus_dim64_in1k", 64), ("small_plus_tl_224", 32)):
        file = tmp_path / f"uniformer_{name}.pth"
        torch.save(theirs, file)
        if width == 32:
            assert model.load_published(file) == []
        else:
            with pytest.raises(BadWeights, match=r"has heads of 64 channels, this model of 32") as refused:
                model.load_published(file)
            assert "override={'body.stages.2.mixer.heads': 5, 'body.stages.3.mixer.heads': 8}" in str(refused.value)
            heads = {"body.stages.2.mixer.heads": 5, "body.stages.3.mixer.heads": 8}
            wide = formery.create_model("uniformer_small_plus", img_size=32, override=heads)
            assert wide.load_published(file) == []
    with pytest.raises(BadWeights, match="token labelling have heads of 32 channels, or of 64"):
        model.load_published({**theirs, "aux_head.weight": torch.zeros(1000, 512)})
