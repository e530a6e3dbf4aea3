"""Every system's smallest variant has the surface that users of timm and transformers know, at a small size."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from formery import cards, create_model
from formery.bodies.blocks.base import BaseBlock
from formery.model import Model
from tests.contract.common import close, trainable
from tests.contract.subjects import moved

SIZE, CLASSES, LENGTH, FRAMES = 64, 5, 12, 4
PICTURES = ("image", "video")


def of_modality(card: cards.Card, modality: str) -> list[str]:
    return [name for name in card.variants if modality in card.modalities_of(name)]


def modality_of(name: str) -> str:
    return cards.variants()[name].modalities_of(name)[0]


SMALLEST = sorted(
    {
        min(of_modality(card, modality), key=lambda v: card.variants[v]["params"])
        for card in cards.cards().values()
        for modality in card.modalities
    }
)
"""Of each system, for each modality it takes."""


def sizes(name: str) -> dict[str, Any]:
    """Arguments that make a variant small."""
    given: dict[str, Any] = {"img_size": SIZE} if modality_of(name) in PICTURES else {}
    return given | ({"override": {"stem.frames": FRAMES}} if modality_of(name) == "video" else {})


def small(name: str, **more: Any) -> Model:
    """The variant for small images and few classes; a text model as it is."""
    given = {"num_classes": CLASSES} if modality_of(name) in PICTURES else {}
    given |= sizes(name)
    override = {**given.pop("override", {}), **more.pop("override", {})}
    torch.manual_seed(0)
    model = create_model(name, **given, **more, override=override or None)
    moved(model)
    return model.eval()


@cache
def shared(name: str) -> Model:
    """One that tests look at and leave as it is."""
    return small(name)


def inputs(model: Model, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    if model.modality == "image":
        return torch.randn(batch, 3, SIZE, SIZE, generator=draw)
    if model.modality == "video":
        return torch.randn(batch, 3, FRAMES, SIZE, SIZE, generator=draw)
    if model.modality == "series":
        return torch.randn(batch, LENGTH, model.stem.channels, generator=draw)
    return torch.randint(0, model.num_classes, (batch, LENGTH), generator=draw)


def each(features: Any) -> list[Tensor]:
    """Features as a list: one, or one a branch."""
    return list(features) if isinstance(features, list | tuple) else [features]


def blocks_of(model: Model) -> list[str]:
    """Paths of the blocks along the streams of tokens; those between branches are apart."""
    return [path for path, m in model.named_modules() if isinstance(m, BaseBlock) and ".fusions." not in path]


every = pytest.mark.parametrize("name", SMALLEST)
images = pytest.mark.parametrize("name", [n for n in SMALLEST if modality_of(n) in PICTURES])
streaming = pytest.mark.parametrize("name", [n for n in SMALLEST if cards.variants()[n].variants[n]["streams"]])


@every
def test_forward_and_backward(name: str) -> None:
    model = small(name).double().train()  # so that small weights of softmaxes and features are no zeros
    x = inputs(model)
    output = model(x.double() if x.is_floating_point() else x)
    sum(part.square().mean() for part in (output if isinstance(output, tuple) else (output,))).backward()
    missed = [
        n for n, p in trainable(model).items() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert not missed


@every
def test_features_with_their_strides(name: str) -> None:
    model = small(name)
    features = create_model(name, features_only=True, **sizes(name))
    maps = features(inputs(model))
    info = features.feature_info
    assert len(maps) == len(info) > 0
    for tokens, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        whole = (SIZE, SIZE) if model.modality == "image" else (FRAMES, SIZE, SIZE)
        strides = reduction if isinstance(reduction, tuple) else (reduction,) * len(whole)
        grid = [round(n / stride) for n, stride in zip(whole, strides, strict=True)]
        expected = (2, channels, *grid) if model.modality in PICTURES else (2, LENGTH, channels)
        assert tokens.shape == expected
    assert all(features.get_submodule(name) is not None for name in info.module_name())
    last = create_model(name, features_only=True, out_indices=[-1], **sizes(name))
    assert [m.shape for m in last(inputs(model))] == [maps[-1].shape]


@every
def test_features_then_head_is_forward(name: str) -> None:
    model = shared(name)
    x = inputs(model)
    features = model.forward_features(x)
    assert sum(x.shape[1 if x.dim() > 3 else -1] for x in each(features)) == model.num_features
    close(model.forward_head(features), model(x), tolerance=1e-5)
    assert model.forward_head(features, pre_logits=True).shape[-1] == model.head_hidden_size
    last = model.get_classifier()
    layers = list(last) if isinstance(last, nn.ModuleList) else [last]
    assert all(layer.out_features == model.num_classes for layer in layers)


@every
def test_intermediates(name: str) -> None:
    model = shared(name)
    x, info = inputs(model), model.feature_info
    last, maps = model.forward_intermediates(x)
    for ours, whole in zip(each(last), each(model.forward_features(x)), strict=True):
        close(ours, whole, tolerance=1e-5)
    assert [m.shape[1 if m.dim() > 3 else -1] for m in maps] == info.channels()
    two = model.forward_intermediates(x, indices=min(2, len(maps)), intermediates_only=True)
    for ours, expected in zip(two, maps[-2:], strict=True):
        assert torch.equal(ours, expected)
    by_last = model.forward_intermediates(x, indices=[-1], output_fmt="NHWC", intermediates_only=True)[0]
    rows = model.forward_intermediates(x, indices=[-1], output_fmt="NLC", intermediates_only=True)[0]
    assert torch.equal(by_last.flatten(1, -2), rows)
    assert torch.equal(by_last.movedim(-1, 1) if by_last.dim() > 3 else by_last, maps[-1])
    normed = model.forward_intermediates(x, norm=True, intermediates_only=True)
    assert [m.shape for m in normed] == [m.shape for m in maps]
    with_prefix = model.forward_intermediates(x, indices=1, return_prefix_tokens=True, intermediates_only=True)[0]
    assert isinstance(with_prefix, tuple) is bool(model.num_prefix_tokens)


@images
def test_reset_classifier(name: str, tmp_path: Path) -> None:
    model = small(name)
    x = inputs(model)
    features = model.forward_features(x)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.num_classes == model.resolved["head"]["num_classes"] == 7
    assert all(torch.equal(a, b) for a, b in zip(each(model.forward_features(x)), each(features), strict=True))
    model.save_pretrained(tmp_path)
    assert torch.equal(Model.from_pretrained(tmp_path).eval()(x), model(x))
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    model.reset_classifier(0, global_pool="max")
    assert model(x).shape == (2, model.num_features)
    assert isinstance(model.get_classifier(), nn.Identity)


@every
def test_groups_cover_all_parameters(name: str) -> None:
    model = shared(name)
    matcher = model.group_matcher()
    patterns = [matcher["stem"], *(pattern for pattern, _ in matcher["blocks"])]
    missed = [n for n, _ in model.named_parameters() if not any(re.match(pattern, n) for pattern in patterns)]
    assert not missed
    single = [pattern for pattern, last in matcher["blocks"] if last is None]
    depths = {m.groups() for n, _ in model.named_parameters() for p in single if (m := re.match(p, n))}
    beside = r"branches\.\d+\.|inner\.|outer\."  # side by side: one depth
    assert len(depths) == len({re.sub(beside, "", path) for path in blocks_of(model)})
    coarse = model.group_matcher(coarse=True)
    patterns = [coarse["stem"], *(pattern for pattern, _ in coarse["blocks"])]
    assert all(any(re.match(pattern, n) for pattern in patterns) for n, _ in model.named_parameters())


@every
def test_checkpointing_changes_nothing(name: str) -> None:
    model = small(name).double()  # in evaluation: no dropping of branches, and batch statistics stay
    x, parameters = inputs(model), list(trainable(model).values())
    x = x.double() if x.is_floating_point() else x  # without batch statistics activations may pass float32's range
    expected = torch.autograd.grad(model(x).square().mean(), parameters, allow_unused=True)  # what only training has
    model.set_grad_checkpointing()
    assert model.grad_checkpointing
    found = torch.autograd.grad(model(x).square().mean(), parameters, allow_unused=True)
    assert sum(gradient is not None for gradient in found) > 0.9 * len(parameters)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs) if ours is not None and theirs is not None else ours is theirs
    model.set_grad_checkpointing(False)
    assert not model.grad_checkpointing


@every
def test_names_without_decay_are_there(name: str) -> None:
    model = shared(name)
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()


@every
def test_facts(name: str) -> None:
    model = shared(name)
    facts = model.default_cfg
    assert facts["architecture"] == model.name == name
    assert facts["num_classes"] == model.num_classes
    last, named = model.get_classifier(), facts["classifier"]
    named = [model.get_submodule(name) for name in ((named,) if isinstance(named, str) else named)]
    assert all(layer.out_features == model.num_classes for layer in named)
    assert all(layer in named for layer in (last if isinstance(last, nn.ModuleList) else [last]))
    if model.modality in PICTURES:
        assert facts["input_size"] == tuple(inputs(model).shape[1:])
        firsts = facts["first_conv"]
        assert bool(firsts) is (model.stem.first is not None)
        for first in (firsts,) if isinstance(firsts, str) else firsts:
            assert isinstance(model.get_submodule(first), nn.Conv2d | nn.Conv3d)


@every
def test_saved_and_loaded_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = shared(name)
    model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(inputs(model)), model(inputs(model)))
    assert loaded.resolved == model.resolved
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


@every
def test_mixers_are_swapped_by_one_line(name: str) -> None:
    model = small(name, override={"body.mixer": "identity"})
    positions = {
        f"{path.removesuffix('scheme')}sublayers.{i}"
        for path, scheme in model.named_modules()
        for i in getattr(scheme, "bare", ())
    }
    # What branches tell each other, what is mixed beside a block's mixer, and inside tokens.
    others = (".fusions.", ".local", ".inner.")
    swapped = {
        type(m).__name__
        for path, m in model.mixers()
        if path not in positions and not path.endswith(".channel") and not any(name in path for name in others)
    }
    assert swapped == {"Identity"}  # feed-forward networks are not the mixer's place either
    assert model(inputs(model)).isfinite().all()


@images
def test_other_channels_and_stochastic_depth(name: str) -> None:
    model = small(name, in_chans=1, drop_path_rate=0.2)
    matcher = model.group_matcher()["blocks"]

    def depth(path: str) -> tuple[int, ...]:
        found, last = next((m, last) for pattern, last in matcher if (m := re.match(pattern, path)))
        return (*map(int, found.groups()), *(last or ()))

    dropping = [
        (depth(path), module.drop_path) for path, module in model.named_modules() if hasattr(module, "drop_path")
    ]
    rates = [rate for _, rate in sorted(dropping)]
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (0.0, 0.2)
    assert model(inputs(model)[:, :1]).shape == (2, CLASSES)


@every
def test_streams_where_the_card_says_so(name: str) -> None:
    assert shared(name).streams is cards.variants()[name].variants[name]["streams"]


@streaming
def test_chunks_give_the_whole(name: str) -> None:
    model = shared(name)
    ids = inputs(model)
    state = model.new_state(2, LENGTH)
    with torch.no_grad():
        chunks = [model(chunk, state=state) for chunk in ids.split([5, 1, 4, 2], dim=1)]
        close(torch.cat(chunks, dim=1), model(ids), tolerance=1e-4)
