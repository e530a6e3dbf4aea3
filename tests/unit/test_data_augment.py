"""Augmentation: drawn from (seed, step) alone, torchvision's pixels and ours alike, targets that add up."""

import tests.tvshim  # noqa: F401

import numpy as np
import pytest
import torch
from scipy import stats

from formery.data import ArrayData, open_data
from formery.data.augment import Augmentation, augmentation_of, torchvision_operations
from formery.data.augment.augmentation import PRESETS
from formery.data.augment.boxes import boxes
from formery.data.augment.mixing import beta
from formery.data.augment.operations import OPERATIONS
from formery.data.augment.policies import NAMES, Policy, policy_of
from formery.data.shapes import KINDS, shapes
from formery.errors import BadSpec
from formery.tasks.distillation import from_labels

AMOUNTS = {
    "translate_x": [0.3, -0.2, 0.1, -0.45],
    "translate_y": [0.3, -0.2, 0.1, -0.45],
    "rotate": [30.0, -12.0, 90.0, 135.0],
    "posterize": [8.0, 4.0, 2.0, 6.0],
    "solarize": [0.0, 0.3, 0.9, 1.0],
}


def pictures(num: int = 60, size: int = 12, channels: int = 3) -> ArrayData:
    images = np.random.default_rng(0).integers(0, 256, (num, size, size, channels), dtype=np.uint8)
    return ArrayData(images, np.arange(num) % 3, layout="NHWC", augment="deit", shifts=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 9, 14)])
def test_operations_are_torchvisions(name, shape):
    pytest.importorskip("torchvision")
    images = torch.rand(4, *shape)
    images[0, :, :4] = 0.25
    amounts = torch.tensor(AMOUNTS.get(name, [0.3, -0.9, 0.1, 0.9]))
    before = images.clone()
    ours, theirs = OPERATIONS[name](images, amounts), torchvision_operations.operations()[name](images, amounts)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert torch.equal(images, before)
    assert ours.shape == images.shape
    if name != "identity" and not (name == "colour" and shape[0] == 1):
        assert not torch.allclose(ours, images, atol=1e-3)


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_a_pure_function_of_seed_and_step(preset, channels):
    images = np.random.default_rng(0).integers(0, 256, (30, 12, 10, channels), dtype=np.uint8)
    first, again, other = (
        ArrayData(images, np.arange(30) % 3, layout="NHWC", augment=preset, seed=seed) for seed in (5, 5, 6)
    )
    wanted = first.train_batch(7, 8)
    first.train_batch(3, 5)
    torch.manual_seed(1)
    for got in (first.train_batch(7, 8), again.train_batch(7, 8)):
        assert torch.equal(got[0], wanted[0])
        assert torch.equal(got[1], wanted[1])
    assert wanted[0].shape == (8, channels, 12, 10)
    assert wanted[0].isfinite().all()
    assert not torch.equal(other.train_batch(7, 8)[0], wanted[0])
    assert not torch.equal(first.train_batch(8, 8)[0], wanted[0])


def test_parts_to_judge_by_are_left_alone():
    plain, strong = (ArrayData(*_random(), layout="NHWC", augment=name) for name in ("none", "deit"))
    for one, other in zip(plain.validation_batches(9), strong.validation_batches(9), strict=True):
        assert torch.equal(one[0], other[0])
        assert other[1].dtype == torch.int64


def _random():
    return np.random.default_rng(1).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8), np.arange(30) % 2


def test_crops_are_boxes_of_the_asked_area_and_shape():
    found, fits = boxes(0, "crop", 0, 3000, (64, 48), (0.2, 0.6), (0.5, 2.0))
    up, left, height, width = found[fits].T
    assert fits.mean() > 0.95
    assert (up >= 0).all()
    assert (left >= 0).all()
    assert (up + height <= 64).all()
    assert (left + width <= 48).all()
    area, ratio = height * width / (64 * 48), width / height
    assert 0.18 < area.min() < 0.22
    assert 0.55 < area.max() < 0.63
    assert 0.45 < ratio.min() < 0.55
    assert abs(np.log(ratio).mean()) < 0.15  # even in the logarithm, but for boxes that do not fit


def test_a_whole_crop_is_the_image_and_another_size_is_given():
    images = torch.rand(3, 3, 10, 10)
    whole = Augmentation(crop=[1.0, 1.0], ratio=[1.0, 1.0])
    assert torch.equal(whole(images, 0, 0), images)
    assert whole(images, 0, 0, (5, 6)).shape == (3, 3, 5, 6)
    flat = Augmentation(crop=[0.1, 0.5], mode="bicubic")(torch.full((4, 1, 9, 9), 0.3), 0, 0)
    torch.testing.assert_close(flat, torch.full((4, 1, 9, 9), 0.3))


def test_erasing_makes_a_box_of_noise_in_a_share_of_the_images():
    images = torch.zeros(800, 1, 16, 16)
    out = Augmentation(erase=0.25).erased(images, 0, 0)
    touched = (out != 0).flatten(1).any(1)
    assert 0.2 < touched.float().mean() < 0.3
    share = (out[touched] != 0).flatten(1).float().mean(1)
    assert share.min() > 0.01
    assert share.max() < 0.36
    assert abs(out[out != 0].std() - 1) < 0.05
    assert not images.any()


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_and_targets_belong_together(kind):
    """Class k is an image of value k, so that the mean of a mixed image tells the shares of its classes."""
    labels = torch.arange(6) % 3
    images = labels.float()[:, None, None, None].expand(6, 2, 16, 16)
    seen = set()
    for step in range(20):
        mixed, targets = Augmentation(**{kind: 1.0}).mixed(images, labels, 3, 0, step)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ torch.arange(3.0), atol=1e-5, rtol=0)
        seen.add(round(float(targets[0, 0]), 3))
    assert len(seen) > 5
    half = [Augmentation(mix=0.5, **{kind: 1.0}).mixed(images, labels, 3, 0, step)[0] for step in range(60)]
    assert 0.3 < np.mean([torch.equal(one, images) for one in half]) < 0.7


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_weights_are_drawn_from_beta(alpha):
    drawn = [beta(alpha, at) for at in np.linspace(0.001, 0.999, 200)]
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 0.5


def test_soft_targets_are_smoothed_like_hard_ones():
    scores, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    hard = from_labels(scores, labels, 0.2)
    soft = from_labels(scores, torch.nn.functional.one_hot(labels, 3).float(), 0.2)
    torch.testing.assert_close(hard, soft)
    mixed = torch.tensor([[0.3, 0.7, 0.0]]).expand(5, 3)
    first, second = (from_labels(scores, torch.full((5,), k), 0.2) for k in (0, 1))
    torch.testing.assert_close(from_labels(scores, mixed, 0.2), 0.3 * first + 0.7 * second)


def test_images_are_repeated_within_a_batch():
    data = ArrayData(*_random(), layout="NHWC", augment={"repeats": 3, "flips": True, "crop": [0.3, 1.0]})
    steps = data.steps_per_epoch(6)
    drawn = np.concatenate([data.train_items(step, 6) for step in range(steps)])
    assert steps == -(-3 * data.num_train // 6)
    counts = np.bincount(drawn[: 3 * data.num_train], minlength=30)
    assert set(counts[data.parts.train]) == {3}
    images, labels = data.train_batch(0, 6)
    assert labels[0] == labels[1] == labels[2]
    assert not torch.equal(images[0], images[1])


def test_policies_are_read_as_timm_writes_them():
    assert policy_of("rand-m9-mstd0.5-inc1") == policy_of("rand") == Policy(False, 2, 9.0, 0.5, 0.5)
    assert policy_of("rand-m7-n3-p1") == Policy(False, 3, 7.0, 0.0, 1.0)
    assert policy_of("trivial").layers == 1
    steps = list(Policy(False, 2, 9.0, 0.0, 0.5).steps(4000, (32, 32), 0, 0))
    counts = np.bincount(steps[0][0], minlength=len(NAMES)) / 4000
    assert abs(counts[NAMES.index("identity")] - (0.5 + 0.5 / 14)) < 0.03
    assert all(abs(share - 0.5 / 14) < 0.015 for name, share in zip(NAMES, counts, strict=True) if name != "identity")
    turned = steps[0][1][torch.from_numpy(steps[0][0] == NAMES.index("rotate"))]
    assert set(turned.abs().tolist()) == {27.0}
    assert 0.35 < (turned > 0).float().mean() < 0.65


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("diet", "no preset is called 'diet'; did you mean deit"),
        ({"like": "light", "polcy": "rand"}, "augment takes no option 'polcy'; did you mean policy"),
        ({"policy": "auto"}, "policy 'auto' is none"),
        ({"policy": "rand-x3"}, "'x3' is none of m, n, mstd, p, inc"),
        ({"policy": "rand-m9-inc0"}, "leave inc out"),
        ({"policy": "rand-m11"}, r"m lies in 0\.\.10"),
        ({"crop": [0.5]}, r"crop=\[0.5\] must be"),
        ({"crop": [0.9, 0.5]}, "crop="),
        ({"crop": "big"}, r"augment\.crop: .*got 'big'"),
        ({"erase": 2.0}, "erase=2.0 must lie"),
        ({"mixup": -1.0}, "mixup=-1.0 must be a number"),
        ({"repeats": 0}, "repeats=0"),
        ({"by": "pillow"}, r"augment\.by: .*torchvision"),
        ({"shifts": 20}, "shifts=20 leave nothing"),
    ],
)
def test_what_does_not_fit_is_refused(augment, message):
    with pytest.raises(BadSpec, match=message):
        open_data("digits", augment=augment)


def test_single_options_go_with_a_preset_and_all_are_told(monkeypatch):
    found = augmentation_of({"like": "deit", "mixup": 0.2}, size=(32, 32), rotation=5.0)
    assert (found.mixup, found.cutmix, found.rotation, found.shifts) == (0.2, 1.0, 5.0, 0)
    assert augmentation_of(None, size=(32, 32)) == Augmentation(shifts=2)
    assert found.describe()["operations_by"].startswith("torchvision ")
    monkeypatch.setattr(torchvision_operations, "installed", lambda: False)
    assert found.describe()["operations_by"] == "tensors"
    assert Augmentation(flips=True).describe()["operations_by"] is None
    with pytest.raises(BadSpec, match="torchvision is not installed"):
        Augmentation(by="torchvision")


def test_both_libraries_make_the_same_batches():
    pytest.importorskip("torchvision")
    ours, theirs = (
        ArrayData(*_random(), layout="NHWC", augment={"like": "deit", "by": by, "jitter": 0.3}).train_batch(2, 12)
        for by in ("tensors", "torchvision")
    )
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-4, rtol=0)
    assert torch.equal(ours[1], theirs[1])


def test_shapes_are_drawn_from_seed_and_number():
    images, labels = shapes(3, size=16)
    more, _ = shapes(4, size=16)
    assert images.shape == (24, 16, 16, 3)
    assert np.array_equal(images, more[:24])
    assert not np.array_equal(images, shapes(3, size=16, seed=1)[0])
    assert labels.tolist() == list(range(8)) * 3
    assert open_data("shapes", num_per_class=8, image_size=12).classes == list(KINDS)
    with pytest.raises(BadSpec, match="must be at least two of triangle"):
        open_data("shapes", kinds=["square"])
