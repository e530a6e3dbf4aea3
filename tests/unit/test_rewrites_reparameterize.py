"""Reparameterize: exact, for good, once, in evaluation only; then everything that is left folds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import tests.tvshim  # noqa: F401 # before timm

import pytest
import timm.utils
import torch

import formery
from formery import rewrites
from formery.context import NOTHING
from formery.errors import BadSpec, CannotRewrite, CannotRun
from formery.model import Model
from formery.parts.mixers.large_kernel import BRANCHES, LargeKernel, spread
from formery.published import BadWeights
from tests.unit.rewrites_families import FAMILIES, error, inputs_for, model_of

FAMILY = "large kernels"
LARGE = ["body.stages.0.blocks.0.mixer", "body.stages.0.blocks.1.mixer"]


def drawn(size: int, **options: Any) -> LargeKernel:
    """A mixer with branches whose every number is random, running statistics too, in float64."""
    torch.manual_seed(size)
    mixer = LargeKernel(6, size=size, **options).double()
    with torch.no_grad():
        for name, tensor in mixer.state_dict().items():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if name.endswith("var") else torch.randn_like(tensor))
    return mixer.eval()


@pytest.mark.parametrize("size", [3, *sorted(BRANCHES)])
@torch.no_grad()
def test_merging_is_exact(size: int) -> None:
    mixer = drawn(size, dilated=size > 3)
    x = torch.randn(2, 19, 21, 6, dtype=torch.float64)
    before = mixer(x)
    weight, bias = mixer.kernel()
    mixer.reparameterize()
    assert error(mixer(x), before) < 1e-12
    assert not mixer.branched
    assert torch.equal(mixer.conv.weight, weight)
    assert bias.any() == (size > 3)
    assert (mixer.conv.bias is not None) == (size > 3)
    again = copy.deepcopy(mixer.state_dict())
    mixer.reparameterize()
    assert all(torch.equal(tensor, again[name]) for name, tensor in mixer.state_dict().items())


@pytest.mark.parametrize(("size", "branches"), BRANCHES.items())
def test_branches_stay_inside(size: int, branches: Any) -> None:
    assert all(dilation * (small - 1) + 1 <= size for small, dilation in branches)


@torch.no_grad()
def test_a_dilated_kernel_is_a_sparse_one() -> None:
    x, kernel = torch.randn(1, 1, 15, 15, dtype=torch.float64), torch.randn(1, 1, 3, 3, dtype=torch.float64)
    wide = spread(kernel, 4)
    assert wide.shape[-1] == 9
    assert int((wide != 0).sum()) == 9
    dilated = torch.conv2d(x, kernel, padding=4, dilation=4)
    torch.testing.assert_close(torch.conv2d(x, wide, padding=4), dilated, rtol=1e-12, atol=1e-12)


def test_the_plan() -> None:
    model = model_of(FAMILY)
    plan = rewrites.find("reparameterize").decide(model)
    assert [step["part"] for step in plan["steps"]] == LARGE
    assert rewrites.available(model)["reparameterize"] is None
    assert rewrites.available(model_of("convnext"))["reparameterize"] == "no part of it has parallel branches to merge"


@torch.no_grad()
def test_everything_folds_afterwards(tmp_path: Path) -> None:
    """No batch norm, shift or layer scale is left; saved and loaded, outputs are equal to the last bit."""
    model, data = model_of(FAMILY), inputs_for(FAMILIES[FAMILY])
    before = model(data)
    _, unmerged, _ = rewrites.apply(copy.deepcopy(model), "fold")
    assert [r["where"] for r in unmerged["refused"] if r["what"] == "batch norm"] == [f"{path}.norm" for path in LARGE]
    for name in ("reparameterize", "fold"):
        _, plan, report = rewrites.apply(model, name, data)
        assert report["difference"] < 1e-12
        assert plan["refused"] == []
    assert error(model(data), before) < 1e-12
    left = {name for name, _ in model.named_parameters() if "blocks" in name}
    ends = {name.partition("blocks.")[2].partition(".")[2] for name in left}
    assert ends == {
        f"{layer}.{tensor}"
        for layer in ("mixer.conv", "mixer.squeeze.reduce", "mixer.squeeze.expand", "channel.expand", "channel.reduce")
        for tensor in ("weight", "bias")
    } | {"channel.grn.weight"}
    assert not [name for name, _ in model.named_buffers() if "blocks" in name]
    model.float().save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path).eval()
    assert [plan["kind"] for plan in again.plans] == ["reparameterize", "fold"]
    assert torch.equal(again(data.float()), model(data.float()))
    assert rewrites.find("reparameterize").decide(model)["steps"] == []
    with pytest.raises(BadWeights, match="no published names"):
        model.to_published("authors")


@torch.no_grad()
def test_folded_first() -> None:
    """Branches whose batch norms were folded into their convolutions merge all the same."""
    model, data = model_of(FAMILY), inputs_for(FAMILIES[FAMILY])
    before = model(data)
    for name in ("fold", "reparameterize", "fold"):
        rewrites.apply(model, name)
    assert error(model(data), before) < 1e-12
    assert not any("norm" in name for name, _ in model.named_buffers())


def test_not_while_training() -> None:
    model = model_of(FAMILY).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CannotRewrite, match=r"0.blocks.0.mixer is in training mode, .* call eval\(\)"):
        rewrites.apply(model, "reparameterize")
    assert model.state_dict().keys() == before.keys()
    with pytest.raises(CannotRun, match=r"call eval\(\) first"):
        LargeKernel(4, size=5).reparameterize()


def test_edited_plans() -> None:
    rewrite = rewrites.find("reparameterize")
    for path, message in (("body.stages.1.blocks.0.mixer", "no branches"), ("stem.convs.9", "no such module")):
        model = model_of(FAMILY)
        plan = rewrite.decide(model)
        plan["steps"].append({"part": path})
        with pytest.raises(CannotRewrite, match=message):
            rewrite.perform(model, plan)
        assert len(rewrite.decide(model)["steps"]) == len(LARGE)


@torch.no_grad()
def test_by_timms_utility() -> None:
    """timm's own function looks for the method by its name."""
    model = formery.create_model("unireplknet_a", num_classes=3).eval()
    for name, tensor in model.state_dict().items():
        tensor.add_(0.1 * torch.randn_like(tensor).abs() if name.endswith("var") else 0.1 * torch.randn_like(tensor))
    images = torch.randn(1, 3, 64, 64)
    merged = timm.utils.reparameterize_model(model)
    assert error(merged(images), model(images)) < 1e-5
    assert not any("branches" in name for name, _ in merged.named_parameters())
    assert any("branches" in name for name, _ in model.named_parameters())


@torch.no_grad()
def test_merged_models_learn_on() -> None:
    """What is left is one layer with a gradient, and the statistics of the norms that stay move as always."""
    model = model_of(FAMILY)
    rewrites.apply(model, "reparameterize")
    with torch.enable_grad():
        model.train()(inputs_for(FAMILIES[FAMILY])).square().sum().backward()
    conv: Any = model.get_submodule(f"{LARGE[0]}.conv")
    assert conv.weight.grad.any()
    assert conv.bias.grad is not None


def test_sizes_without_branches() -> None:
    with pytest.raises(BadSpec, match="5, 7, 9, 11, 13, 15, 17, not for 3; set dilated to false"):
        LargeKernel(4, size=3)
    with pytest.raises(BadSpec, match="odd"):
        LargeKernel(4, size=4, dilated=False)
    assert LargeKernel(4, size=19, dilated=False)(torch.randn(1, 5, 5, 4), NOTHING).shape == (1, 5, 5, 4)
