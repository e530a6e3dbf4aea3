"""Every family of image models takes a sequence mixer in its middle, and gives maps that a detector's neck can use."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from formery import cards, create_model
from formery.errors import FormeryError
from formery.model import Model
from formery.parts.mixers.gated_deltanet import GatedDeltaNet
from formery.spec import resolve
from tests.contract.subjects import moved
from tests.families import families

SIDE, CLASSES = 64, 5
ODD, WHOLE = (70, 90), (80, 96)
"""Sizes that no patch fits, and that all do."""

every = pytest.mark.parametrize("name", families())


def middle(name: str) -> str:
    """The path of the mixers in the middle of a model: those of a stage, or of a block."""
    body = resolve(cards.spec_of(name))["body"]
    if "stages" in body:
        return f"body.stages.{len(body['stages']) // 2}.mixer"
    blocks = "blocks" if "blocks" in body else "outer"
    return f"body.{blocks}.{len(body[blocks]) // 2}.mixer"


def hybrid(name: str, **more: Any) -> Model:
    torch.manual_seed(0)
    return create_model(name, img_size=SIDE, in_chans=1, override={middle(name): "gated_deltanet"}, **more)


def swapped(model: Model) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, GatedDeltaNet)]


@every
def test_a_sequence_mixer_in_the_middle(name: str, tmp_path: Path) -> None:
    """It learns, is saved and loaded, drops paths, and has the classes and channels asked for."""
    model = hybrid(name, num_classes=CLASSES, drop_path_rate=0.1).train()
    moved(model)  # some norms begin at zero
    mixers = [path for path, _ in model.mixers()]
    assert 0 < len(swapped(model)) < len(mixers)
    assert max(getattr(module, "drop_path", 0.0) for module in model.modules()) == 0.1
    images = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    output = model(images)
    given = output if isinstance(output, tuple) else (output,)
    assert all(scores.shape == (2, CLASSES) for scores in given)
    sum(scores.square().mean() for scores in given).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert any(model.get_submodule(path).out.weight.grad.any() for path in swapped(model))
    model.eval().save_pretrained(tmp_path)
    again = Model.from_pretrained(tmp_path).eval()
    assert swapped(again) == swapped(model)
    assert torch.equal(again(images), model(images))


@every
def test_maps_of_a_hybrid(name: str) -> None:
    """As many, as wide and as large as those of the published model."""
    with torch.device("meta"):
        ours, published = hybrid(name, features_only=True), create_model(name, img_size=SIDE, features_only=True)
        maps, expected = ours.eval()(torch.empty(1, 1, SIDE, SIDE)), published.eval()(torch.empty(1, 3, SIDE, SIDE))
    assert swapped(ours)
    assert ours.feature_info.channels() == published.feature_info.channels()
    assert ours.feature_info.reduction() == published.feature_info.reduction()
    assert [m.shape for m in maps] == [m.shape for m in expected]


def check_maps(model: Model, maps: list[Tensor], seen: tuple[int, int]) -> None:
    """Channels as told, and sides those of an image of `seen` over the stride, up to rounding."""
    info = model.feature_info
    assert len(maps) == len(info.channels()) == len(info.reduction())
    for one, channels, stride in zip(maps, info.channels(), info.reduction(), strict=True):
        assert one.shape[:2] == (1, channels)
        assert all(side // stride <= n <= -(-side // stride) for side, n in zip(seen, one.shape[2:], strict=True))


def attempt(build: Callable[[], Model], images: Callable[[], Tensor]) -> tuple[Model, list[Tensor]] | str:
    """The model and its maps of the images, or the line by which they are refused."""
    try:
        model = build().eval()
        with torch.no_grad():
            return model, model(images())
    except FormeryError as error:
        return str(error)


def says_why(refusal: str) -> bool:
    """Whether it is one line that says that no patches fit, or which option is to be set."""
    return "\n" not in refusal and bool(re.search(r"not a whole number of patches of \d+|set img_size", refusal))


@every
def test_maps_of_other_images(name: str) -> None:
    """A model takes images of a size that it was not built for, or refuses them by one line where the card says so.

    One that resizes its images gives the maps of its own size.
    """
    fixed = cards.variants()[name].preprocess(name)["fixed_input_size"]
    torch.manual_seed(0)
    built = create_model(name, features_only=True, img_size=SIDE)
    for size in (ODD, WHOLE):
        got = attempt(lambda: built, lambda size=size: torch.randn(1, 3, *size))
        if isinstance(got, str):
            assert fixed or size == ODD
            assert says_why(got)
            continue
        model, maps = got
        assert not fixed or model.stem.fixed_grid
        assert all(one.isfinite().all() for one in maps)
        check_maps(model, maps, (SIDE, SIDE) if model.stem.fixed_grid else size)


@every
@pytest.mark.parametrize("size", [ODD, WHOLE])
def test_maps_of_models_for_any_size(name: str, size: tuple[int, int]) -> None:
    """A model is built for any size that its patches fit."""
    with torch.device("meta"):
        got = attempt(lambda: create_model(name, features_only=True, img_size=size), lambda: torch.empty(1, 3, *size))
    if isinstance(got, str):
        assert size == ODD
        assert says_why(got)
        return
    check_maps(*got, size)
