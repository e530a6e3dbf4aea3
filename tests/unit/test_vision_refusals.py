"""What image models refuse in one line, and the odd inputs that they take."""

from __future__ import annotations

import pytest
import torch

import formery
from formery.errors import BadSpec, CannotRun, UnknownName
from tests.families import families

SMALL = {"swin_tiny", "convnext_atto", "tnt_tiny", "crossvit_9", "t2t_vit_7", "uniformer_xxs", "cct_2_3x2"}
"""One of each kind of body and stem."""


@pytest.mark.parametrize("name", sorted(SMALL & set(families()) | {"tnt_tiny"}))
def test_a_batch_of_none(name: str) -> None:
    model = formery.create_model(name, img_size=64, num_classes=3).eval()
    with torch.no_grad():
        assert model(torch.randn(0, 3, 64, 64)).shape == (0, 3)


@pytest.mark.parametrize("name", ["convnext_atto", "poolformer_s12", "crossformer_t", "t2t_vit_7"])
@pytest.mark.parametrize("side", [1, 2, 5])
def test_an_image_too_small(name: str, side: int) -> None:
    """Refused with the grid and the kernel, or taken."""
    model = formery.create_model(name, num_classes=3).eval()
    said = []
    with torch.no_grad():
        try:
            assert model(torch.randn(1, 3, side, side)).shape == (1, 3)
        except CannotRun as error:
            said.append(str(error))
    assert all("is smaller than a kernel of" in text for text in said)


def test_the_grid_and_the_kernel_are_named() -> None:
    model = formery.create_model("convnext_atto").eval()
    with pytest.raises(CannotRun, match="a grid of 1 x 1 is smaller than a kernel of 2 x 2: the input is too small"):
        model(torch.randn(1, 3, 12, 12))


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny", "swin_tiny"])
def test_another_precision(name: str) -> None:
    model = formery.create_model(name, img_size=64).eval()
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(
        CannotRun, match=r"the input is torch.float64, the model torch.float32; convert one of them, as by input.to"
    ):
        model(images.double())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert model(images.bfloat16()).shape == (1, 1000)


@pytest.mark.parametrize(("wanted", "channels"), [(2, [160, 320]), ((3, 1), [80, 320]), ([-1], [320]), (None, None)])
def test_which_maps(wanted: object, channels: list[int] | None) -> None:
    """By number or how many of the last; they come from the first stage to the last, and so do their facts."""
    model = formery.create_model("convnext_atto", features_only=True, out_indices=wanted).eval()  # type: ignore[arg-type]
    widths = [m.shape[1] for m in model(torch.randn(1, 3, 64, 64))]
    assert widths == model.feature_info.channels() == (channels or [40, 80, 160, 320])


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ([], "numbers of some maps, or how many of the last ones, got"),
        (0, "numbers of some maps"),
        ("ab", "numbers of some maps"),
        ([1.5], "numbers of some maps"),
        ([1, 1], r"each map is given once, got \[1, 1\]"),
        ([3, -1], "each map is given once"),
        ([4], "this body has maps 0 to 3, got 4"),
        (5, "a number of last maps is 1 to 4, got 5"),
    ],
)
def test_maps_that_there_are_not(wanted: object, says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        formery.create_model("convnext_atto", features_only=True, out_indices=wanted)  # type: ignore[arg-type]


def test_names_that_are_like_none() -> None:
    """No models are named that have nothing to do with it."""
    with pytest.raises(
        UnknownName, match="no model is called 'resnet50'; `formery list` has them all, with --modality"
    ):
        formery.create_model("resnet50")
