"""UniRepLKNet under published weights computes what the published code computed, with branches and merged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import formery
from formery import rewrites
from formery.bodies.blocks.block import Block
from formery.model import Model
from formery.published import recognise
from formery.spec import Place, build
from formery.systems.vision import unireplknet
from formery.weights import Dialect, to_ours
from tests import goldens
from tests.parity.agreement import assert_same, error

WANTED = 1e-5
"""Of the output's scale. Measured: at most 2e-6."""
IMAGES = (1, 3, 64, 64)


def published() -> dict[str, Tensor]:
    return goldens.state_from(goldens.facts("unireplknet_a")["tensors"])


def loaded(theirs: dict[str, Tensor]) -> Model:
    model = formery.create_model("unireplknet_a").eval()
    assert model.load_published(theirs) == []
    return model


def test_equals_what_was_recorded() -> None:
    theirs = published()
    model = loaded(theirs)
    assert recognise(model, theirs).name == "authors"
    assert sum(p.numel() for p in model.parameters()) == goldens.facts("unireplknet_a")["params"]
    with torch.no_grad():
        assert goldens.worst_error("unireplknet_a", {"logits": model(goldens.normal(IMAGES))}) < WANTED
    assert_same(model.to_published("authors"), theirs)


@torch.no_grad()
def test_merged_files() -> None:
    """Merged, then folded, a model has the tensors of a deployed file; such a file loads as what it is."""
    theirs = published()
    model = loaded(theirs)
    images = goldens.normal(IMAGES)
    for name in ("reparameterize", "fold"):
        rewrites.apply(model, name)
    assert goldens.worst_error("unireplknet_a", {"logits": model(images)}) < WANTED
    deployed = deployed_names(model)
    again = formery.create_model("unireplknet_a").eval()
    assert recognise(again, deployed).name == "authors_merged"
    assert again.load_published(deployed) == []
    assert sum(p.numel() for p in again.parameters()) == 4_437_300  # as published
    assert error(again(images), model(images)) < 1e-6
    assert_same(again.to_published("authors_merged"), deployed)
    assert again.load_published(published()) == []  # and back to the branches
    assert goldens.worst_error("unireplknet_a", {"logits": again(images)}) < WANTED


def deployed_names(model: Model) -> dict[str, Tensor]:
    """The tensors of a merged model under the names that deployed files have, written out here once more."""
    names: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[1:2] != ["stages"] or parts[3] == "merge":
            continue
        stage, block, rest = parts[2], parts[4], ".".join(parts[5:])
        large = rest.startswith("mixer.conv.") and tensor.dim() != 1 and tensor.shape[-1] > 3
        if rest == "mixer.conv.bias":
            large = model.state_dict()[name.replace("bias", "weight")].shape[-1] > 3
        for ours, their in {
            "mixer.conv": "dwconv.lk_origin" if large else "dwconv",
            "mixer.squeeze.reduce": "se.down",
            "mixer.squeeze.expand": "se.up",
            "channel.expand": "pwconv1.1",
            "channel.grn.weight": "act.1.gamma",
            "channel.reduce": "pwconv2.0",
        }.items():
            if rest.startswith(ours):
                shape = tensor.shape
                if "se." in their and tensor.dim() == 2:
                    shape = (*shape, 1, 1)
                if "gamma" in their:
                    shape = (1, 1, 1, *shape)
                names[f"stages.{stage}.{block}.{their}{rest.removeprefix(ours)}"] = tensor.reshape(shape)
                break
        else:
            raise AssertionError(f"{name} is left in a merged model")
    plain = formery.create_model("unireplknet_a", num_classes=model.num_classes)
    outside = [n for n in plain.to_published("authors") if not (n.startswith("stages."))]
    own = plain.load_published(published()) or plain.to_published("authors")
    return names | {name: own[name] for name in outside}


class TestBlock:
    """The block of 13 x 13, piece by piece."""

    @staticmethod
    def block() -> Block:
        spec: dict[str, Any] = {
            "mixer": {"kind": "large_kernel", "size": 13},
            "channel": {"kind": "grn_mlp", "norm": "batch"},
            "scheme": {"kind": "single", "norm": None, "scale": 1e-6},
        }
        block = build("block", spec, 16, place=Place(grid=(19, 21)))
        assert isinstance(block, Block)
        path = "body.stages.0.blocks.0"
        dialect = Dialect("authors", unireplknet._rules([(path, spec)]))
        theirs = {
            f"stages.0.0.{name}": tensor
            for name, tensor in goldens.state_from(goldens.facts("unireplknet_block_k13")["tensors"]).items()
        }
        shapes = {f"{path}.{name}": tensor.shape for name, tensor in block.state_dict().items()}
        state, wrong = to_ours(theirs, shapes, dialect)
        assert wrong == []
        block.load_state_dict({name.removeprefix(f"{path}."): tensor for name, tensor in state.items()})
        return block.eval()

    @torch.no_grad()
    def test_outputs(self) -> None:
        block: Any = self.block()
        x = goldens.normal((2, 16, 19, 21), 2).movedim(1, -1)
        parts = {"block": block(x).movedim(-1, 1)}
        mixer = block.mixer
        own_norm, squeeze = mixer.norm, mixer.squeeze
        mixer.norm = mixer.squeeze = None
        parts["reparam_branch"] = mixer(x).movedim(-1, 1)
        mixer.norm, mixer.squeeze = own_norm, squeeze
        mixer.reparameterize()
        merged = block(x).movedim(-1, 1)
        rewrites.find("fold")  # the fold works on models; the one kernel is worked out from the same affine map
        from formery.parts.norms.batch import affine_map

        s, t = affine_map(mixer.norm)
        parts["merged_kernel"] = mixer.conv.weight * s[:, None, None, None]
        parts["merged_bias"] = mixer.conv.bias * s + t
        assert goldens.worst_error("unireplknet_block_k13", parts) < WANTED
        assert error(merged, parts["block"]) < 1e-6


@pytest.mark.parametrize("size", sorted(unireplknet.SIZES))
def test_third_stages(size: str) -> None:
    """Kernels alternate where the stage is deep: a large one, then as many small ones as the card says."""
    spec = unireplknet.variant(f"unireplknet_{size}")
    with torch.device("meta"):
        model = Model(spec)
    third: Any = model.body.stages[2]  # type: ignore[index, union-attr]
    sizes = [block.mixer.size for block in third.blocks]
    cycle = {18: [13, 3], 27: [13, 3, 3]}.get(len(sizes), [13])
    assert sizes == [cycle[i % len(cycle)] for i in range(len(sizes))]


@torch.no_grad()
def test_other_channels_and_mixers() -> None:
    """One channel for spectrograms and folded series, from files too; other mixers stand where large kernels stood."""
    gray = formery.create_model("unireplknet_a", in_chans=1, num_classes=4).eval()
    assert gray(torch.randn(1, 1, 96, 48)).shape == (1, 4)
    theirs = published() | {"downsample_layers.0.0.weight": torch.randn(20, 1, 3, 3)}
    gray.load_published(theirs)
    assert gray.resolved["stem"]["in_chans"] == 1
    hybrid = formery.create_model("unireplknet_a", override={"body.stages.2.mixer": "gated_deltanet"}).eval()
    assert hybrid(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    rewrites.apply(hybrid, "reparameterize")
