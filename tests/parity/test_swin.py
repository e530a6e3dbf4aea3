"""Swin, Swin V2 and Swin-MLP compute what the authors' code, timm and transformers compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import formery
from formery.bodies.blocks.block import Block
from formery.model import Model
from formery.ops.token_groups import Cut, mask_of, regions
from formery.parts.mixers.window_attention import WindowAttention
from formery.parts.positions.log_offsets import log_coordinates
from formery.parts.positions.offset_bias import offset_numbers
from formery.published import recognise
from formery.spec import Place, build
from formery.systems.vision import swin
from formery.weights import Dialect, to_ours
from tests import goldens
from tests.parity.agreement import WANTED, assert_same, error, randomised

GOLDEN = 1e-5
"""Of the output's scale. Measured: at most 2e-6."""


def recorded_model(golden: str, variant: str, dialect: str) -> Model:
    """The variant with the golden's weights, which are all there and go back to the same names."""
    facts = goldens.facts(golden)
    theirs = goldens.state_from(facts["tensors"])
    with torch.device("meta"):
        model = formery.create_model(variant).eval()
    assert recognise(model, theirs).name == dialect
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    assert_same(model.to_published(dialect), theirs)
    return model


@torch.no_grad()
def test_swin_tiny() -> None:
    model, images = recorded_model("swin_tiny", "swin_tiny", "authors"), goldens.normal((1, 3, 224, 224))
    _, maps = model.forward_intermediates(images)
    stage: Any = model.body.get_submodule("stages.1")
    outputs = {
        "logits": model(images),
        "patch_embed": model.stem(images, formery.context.NOTHING)[0].flatten(1, 2),
        "stage0_with_merge": stage.merge(maps[0].movedim(1, -1)).flatten(1, 2),
        "stage3": maps[3].movedim(1, -1).flatten(1, 2),
    }
    assert goldens.worst_error("swin_tiny", outputs) < GOLDEN


@pytest.mark.parametrize(
    ("golden", "variant", "dialect", "side"),
    [
        ("swin_tiny_timm", "swin_tiny", "timm", 224),
        ("swinv2_tiny_w8", "swinv2_tiny_w8", "authors", 256),
        ("swinv2_tiny_w8_timm", "swinv2_tiny_w8", "timm", 256),
    ],
)
@torch.no_grad()
def test_equals_what_was_recorded(golden: str, variant: str, dialect: str, side: int) -> None:
    model, images = recorded_model(golden, variant, dialect), goldens.normal((1, 3, side, side))
    last, maps = model.forward_intermediates(images)
    outputs = {"logits": model(images), "stage0": maps[0].movedim(1, -1), "stage3": maps[3].movedim(1, -1)}
    assert goldens.worst_error(golden, outputs) < GOLDEN
    assert last.shape == (1, 768, side // 32, side // 32)


def loaded(part: nn.Module, golden: str, rules: tuple[Any, ...], ours: str, theirs: str) -> None:
    """Give a part of ours, which stands at `ours`, the golden's tensors, which stand at `theirs`."""
    given = {f"{theirs}{n}": t for n, t in goldens.state_from(goldens.facts(golden)["tensors"]).items()}
    shapes = {f"{ours}{name}": tensor.shape for name, tensor in part.state_dict().items()}
    state, wrong = to_ours(given, shapes, Dialect("authors", rules))
    assert wrong == []
    part.load_state_dict({name.removeprefix(ours): tensor for name, tensor in state.items()})


@pytest.mark.parametrize("graded", [False, True], ids=["inference", "with gradients"])
def test_a_shifted_block(graded: bool) -> None:
    mixer = {"kind": "window_attention", "window": 4, "shift": True, "heads": 3}
    block = build("block", {"mixer": mixer}, 24, place=Place(grid=(8, 8))).eval()
    assert isinstance(block, Block)
    loaded(block, "swin_block_shifted", tuple(swin._blocks(swin.AUTHORS, "b", "b.")), "b.", "b.")
    with torch.set_grad_enabled(graded):
        y = block(goldens.normal((1, 64, 24)).view(1, 8, 8, 24)).flatten(1, 2)
    mask = mask_of(regions(Cut(4, shift=2), (8, 8)))
    outputs = {"y": y, "attn_mask": mask, "rel_index": offset_numbers((4, 4)).float()}
    assert goldens.worst_error("swin_block_shifted", outputs) < GOLDEN


@pytest.mark.parametrize("graded", [False, True], ids=["inference", "with gradients"])
def test_cosine_attention(graded: bool) -> None:
    """Two windows of 4 x 4, side by side on a map."""
    spec = swin.V2 | {"window": 4, "heads": 3, "head_dim": None}
    mixer = build("mixer", spec, 24, place=Place(grid=(4, 8))).eval()
    assert isinstance(mixer, WindowAttention)
    loaded(mixer, "swinv2_window_attention", tuple(swin._blocks(swin.AUTHORS, "b", "b.")), "b.mixer.", "b.attn.")
    windows = goldens.normal((2, 16, 24)).view(2, 4, 4, 24)
    with torch.set_grad_enabled(graded):
        y = torch.stack(mixer(torch.cat(list(windows), dim=1)[None])[0].chunk(2, dim=1)).flatten(1, 2)
    coordinates = log_coordinates((4, 4), (4, 4)).view(1, 7, 7, 2)
    assert goldens.worst_error("swinv2_window_attention", {"y": y, "coords": coordinates}) < GOLDEN


@torch.no_grad()
def test_swin_mlp() -> None:
    """A smaller one than is published, of three stages."""
    spec = {**swin.variant("swinmlp_base"), "name": "swinmlp_base"}
    spec["stem"] = {**spec["stem"], "dim": 48, "img_size": 64}
    mixer = swin.MLP | {"window": 4, "head_dim": 16}
    spec["body"] = {
        "kind": "pyramid", "dims": [48, 96, 192], "layouts": ["w s", "(w s)*2", "w s"], "merge": "patch_merging",
        "blocks": {"w": {"mixer": mixer}, "s": {"mixer": {**mixer, "shift": True}}},
    }  # fmt: skip
    model = Model(spec).eval()
    theirs = goldens.state_from(goldens.facts("swinmlp_reduced")["tensors"])
    assert model.load_published(theirs) == []
    assert sum(p.numel() for p in model.parameters()) == goldens.facts("swinmlp_reduced")["params"]
    assert goldens.worst_error("swinmlp_reduced", {"logits": model(goldens.normal((1, 3, 64, 64)))}) < GOLDEN
    assert_same(model.to_published("authors"), theirs)


PEERS = [  # ours, timm's, size of the image
    ("swin_tiny", "swin_tiny_patch4_window7_224", 224),
    ("swinv2_tiny_w8", "swinv2_tiny_window8_256", 256),
]


@pytest.mark.parametrize(("ours", "theirs", "side"), PEERS, ids=[peer[0] for peer in PEERS])
@torch.no_grad()
def test_timm_both_ways(ours: str, theirs: str, side: int) -> None:
    peer = randomised(timm.create_model(theirs, num_classes=7), matrices=0.02)
    model = formery.create_model(ours).eval()
    assert model.load_published(peer.state_dict()) == []
    images = torch.randn(2, 3, side, side)
    assert error(model(images), peer(images)) < WANTED
    assert error(model.forward_features(images), peer.forward_features(images).movedim(-1, 1)) < WANTED
    maps = peer.forward_intermediates(images, intermediates_only=True)
    for one, other in zip(model.forward_intermediates(images, intermediates_only=True), maps, strict=True):
        assert error(one, other) < WANTED
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.01)
    back = timm.create_model(theirs, num_classes=7).eval()
    back.load_state_dict(model.to_published("timm"), strict=True)
    assert error(model(images), back(images)) < WANTED


@pytest.mark.parametrize(("ours", "theirs", "side"), PEERS, ids=[peer[0] for peer in PEERS])
@torch.no_grad()
def test_timms_other_resolution(ours: str, theirs: str, side: int) -> None:
    """At half the size the last windows shrink to 4 x 4; tables are resized as in the authors' code, networks not."""
    peer = randomised(timm.create_model(theirs, num_classes=5), matrices=0.02)
    weights = {name: tensor.clone() for name, tensor in peer.state_dict().items()}
    peer.set_input_size(img_size=side // 2, window_size=side // 32)
    for name, table in peer.named_parameters():  # timm has an interpolation of its own
        if name.endswith("bias_table") and table.shape != weights[name].shape:
            old = weights[name].T.view(1, -1, 13, 13)
            table.copy_(F.interpolate(old, size=(7, 7), mode="bicubic").flatten(2)[0].T)
    model = formery.create_model(ours).eval()
    model.load_published(weights, img_size=side // 2)
    assert model.resolved["stem"]["img_size"] == side // 2
    images = torch.randn(1, 3, side // 2, side // 2)
    assert error(model(images), peer(images)) < WANTED


def hub_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' modules of version 5 under the names of published files."""
    swaps = {
        "attention.q_proj": "attention.self.query", "attention.k_proj": "attention.self.key",
        "attention.v_proj": "attention.self.value", "attention.o_proj": "attention.output.dense",
        "attention.relative_position_bias.": "attention.self.", "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }  # fmt: skip
    found = {}
    for name, tensor in state.items():
        for ours, theirs in swaps.items():
            name = name.replace(ours, theirs)
        found[name] = tensor
    return found


@pytest.mark.parametrize("version", [1, 2])
@torch.no_grad()
def test_transformers(version: int) -> None:
    import transformers

    kind = {1: "Swin", 2: "Swinv2"}[version]
    sizes = {"image_size": 224, "window_size": 7} if version == 1 else {"image_size": 256, "window_size": 8}
    config = getattr(transformers, f"{kind}Config")(num_labels=6, **sizes)  # depths and widths are tiny's
    peer = randomised(getattr(transformers, f"{kind}ForImageClassification")(config), matrices=0.02)
    model = formery.create_model("swin_tiny" if version == 1 else "swinv2_tiny_w8").eval()
    assert model.load_published(peer.state_dict()) == []
    images = torch.randn(1, 3, sizes["image_size"], sizes["image_size"])
    assert error(model(images), peer(images).logits) < WANTED
    files = hub_names(peer.state_dict())
    again = formery.create_model("swin_tiny" if version == 1 else "swinv2_tiny_w8").eval()
    assert recognise(again, files).name == "transformers_files"
    assert again.load_published(files) == []
    assert torch.equal(again(images), model(images))
    assert_same(again.to_published("transformers_files"), files)
