"""Images: every item once an epoch, parts that neither overlap nor move, batches that depend on (seed, step) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formery.data import ArrayData, ImageData, load_image, open_data
from formery.data.augment import Augmentation
from formery.data.baselines import majority
from formery.data.splits import PARTS, by_content, given_parts, plain
from formery.errors import BadData, BadSpec


def some_images(num: int = 40, size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(seed).integers(0, 256, (num, size, size), dtype=np.uint8)
    return images, np.arange(num) % 2


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return open_data("digits")


def test_digits_are_split_by_class_and_described(digits):
    assert (digits.modality, digits.task, digits.in_chans, digits.image_size) == ("image", "classify", 1, 8)
    assert digits.classes == list("0123456789")
    sizes = digits.describe()["splits"]
    assert sum(sizes.values()) == 1797
    for part in (digits.train(), digits.validation(), digits.test()):
        counts = part.labels.bincount(minlength=10)
        assert counts.max() - counts.min() <= 0.1 * counts.max() + 1
    assert 0.05 < majority(digits) < 0.15


def test_the_training_part_has_mean_zero_and_deviation_one(digits):
    images = torch.cat([images for images, _ in digits.train().batches(500)])
    assert abs(images.mean()) < 1e-4
    assert abs(images.std() - 1) < 1e-3


@given(num=st.integers(7, 60), batch=st.integers(1, 70), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_every_item_once_an_epoch(num, batch, seed):
    data = ArrayData(*some_images(num), seed=seed, shifts=0)
    steps = -(-2 * data.num_train // batch)
    drawn = np.concatenate([data.train_items(step, batch) for step in range(steps)])
    first, second = drawn[: data.num_train], drawn[data.num_train : 2 * data.num_train]
    assert sorted(first) == sorted(second) == sorted(data.parts.train)
    assert len(drawn) == steps * batch


def test_epochs_and_seeds_differ_and_agree():
    images, labels = some_images(60)
    data, again, other = (ArrayData(images, labels, seed=seed) for seed in (3, 3, 4))
    order = [data.train_items(epoch, data.num_train).tolist() for epoch in range(3)]
    assert order[0] != order[1] != order[2]
    assert order[0] == again.train_items(0, data.num_train).tolist()
    assert order[0] != other.train_items(0, data.num_train).tolist()


def test_a_batch_is_a_pure_function_of_seed_and_step(digits):
    options = {"zoom": 0.1, "rotation": 10.0}
    data = open_data("digits", seed=5, **options)
    wanted = data.train_batch(7, 16)
    data.train_batch(3, 5)
    torch.manual_seed(1)
    np.random.seed(1)
    again = open_data("digits", seed=5, **options)
    for got in (data.train_batch(7, 16), again.train_batch(7, 16)):
        assert torch.equal(got[0], wanted[0])
        assert torch.equal(got[1], wanted[1])
    assert wanted[0].dtype == torch.float32
    assert wanted[1].dtype == torch.int64
    assert not torch.equal(data.train_batch(8, 16)[0], wanted[0])


def test_splits_do_not_move_with_the_training_seed(digits):
    other = open_data("digits", seed=9)
    assert plain(digits.parts) == plain(other.parts)
    assert plain(digits.parts) != plain(open_data("digits", split_seed=1).parts)


@given(st.integers(6, 80), st.integers(2, 4), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_parts_cover_everything_once_and_follow_the_content(num, num_classes, chance):
    labels = [item % num_classes for item in range(num)]
    contents = [bytes([chance.randrange(40)]) for _ in range(num)]
    classes = [str(label) for label in range(num_classes)]
    own = {content: {labels[item] for item in range(num) if contents[item] == content} for content in contents}
    if any(sum(owners == {label} for owners in own.values()) < 3 for label in range(num_classes)):
        with pytest.raises(BadData, match=r"are needed|identical"):
            by_content(contents, labels, classes, (0.7, 0.15, 0.15))
        return
    parts = by_content(contents, labels, classes, (0.7, 0.15, 0.15))
    everything = [item for part in PARTS for item in getattr(parts, part)]
    assert sorted(everything) == list(range(num))
    part_of = {contents[item]: part for part in PARTS for item in getattr(parts, part)}
    assert all(part_of[contents[item]] == part for part in PARTS for item in getattr(parts, part))
    for part in PARTS:
        assert {labels[item] for item in getattr(parts, part)} == set(range(num_classes))
    shuffled = list(range(num))
    chance.shuffle(shuffled)
    moved = by_content(
        [contents[item] for item in shuffled], [labels[item] for item in shuffled], classes, (0.7, 0.15, 0.15)
    )
    for part in PARTS:
        assert sorted(shuffled[item] for item in getattr(moved, part)) == sorted(getattr(parts, part))


def test_held_out_parts_are_never_dropped_in_part(digits):
    for part, batches in (("validation", digits.validation_batches(64)), ("test", digits.test_batches(64))):
        batches = list(batches)
        sizes = [len(labels) for _, labels in batches]
        assert sum(sizes) == len(getattr(digits.parts, part))
        assert sizes[-1] == sum(sizes) % 64
        whole = next(iter(getattr(digits, part)().batches(10_000)))
        assert torch.equal(torch.cat([images for images, _ in batches]), whole[0])


def test_augmentation_moves_by_whole_pixels_and_repeats_the_border():
    image = torch.zeros(400, 1, 8, 8)
    image[:, :, 4, 4] = 1
    moved = Augmentation(shifts=2)(image, 0, 0)
    where = {tuple(place[1:].tolist()) for place in moved[:, 0].nonzero()}
    assert where == {(row, column) for row in range(2, 7) for column in range(2, 7)}
    edge = torch.arange(8.0).expand(50, 1, 8, 8)
    assert set(Augmentation(shifts=1)(edge, 0, 1)[:, 0, 0, 0].tolist()) == {0.0, 1.0}
    flipped = Augmentation(flips=True)(edge, 0, 0)
    assert set(flipped[:, 0, 0, 0].tolist()) == {0.0, 7.0}


def test_zoom_and_rotation_keep_the_middle_and_can_turn_it_round():
    image = torch.zeros(64, 1, 9, 9)
    image[:, :, 4, 4] = 1
    turned = Augmentation(zoom=0.2, rotation=30)(image, 0, 0)
    assert torch.allclose(turned[:, 0, 4, 4], torch.ones(64), atol=1e-5)
    wide = torch.zeros(1, 1, 8, 16)
    wide[..., :8] = 1
    half_turn = Augmentation(rotation=180)
    found = [half_turn(wide, 0, step)[0, 0, :, 0].mean() for step in range(20)]
    assert min(found) < 0.1
    assert max(found) > 0.9


@pytest.mark.parametrize("options", [{"shifts": -1}, {"zoom": 1.0}, {"rotation": 200}, {"shifts": 5}])
def test_impossible_augmentation_is_refused(options):
    with pytest.raises(BadSpec, match=next(iter(options))):
        open_data("digits", **options)


def test_digits_can_be_enlarged():
    data = open_data("digits", image_size=(16, 24))
    assert data.train_batch(0, 3)[0].shape == (3, 1, 16, 24)
    assert data.preprocess["size"] == [16, 24]
    assert data.digest == open_data("digits").digest


def test_copies_stay_together_and_contradictions_stay_in_training():
    images, labels = some_images(60)
    images[10:20] = images[0:10]  # same classes: copies
    images[21] = images[20]  # different classes
    data = ArrayData(images, labels)
    assert data.describe()["copies"] == 11
    assert data.describe()["in_two_classes"] == 1
    assert data.describe()["held_out_in_training"] == 0
    assert {20, 21} <= set(data.parts.train.tolist())


def test_layouts_dtypes_and_names_of_arrays():
    images, labels = some_images(30)
    grey = ArrayData(images, labels)
    floats = ArrayData(torch.from_numpy(images).float() / 255, torch.from_numpy(labels))
    assert torch.allclose(grey.train().data.pictures.take(np.arange(30)), floats.pictures.take(np.arange(30)))
    sixteen = ArrayData(images.astype(np.uint16) * 257, labels, white=65535)
    assert torch.allclose(sixteen.pictures.take(np.arange(30)), grey.pictures.take(np.arange(30)))
    colour = np.stack([images] * 3, -1)
    assert ArrayData(colour, labels).in_chans == 3
    assert torch.equal(
        ArrayData(colour, labels).train_batch(0, 4)[0],
        ArrayData(colour.transpose(0, 3, 1, 2), labels).train_batch(0, 4)[0],
    )
    words = ArrayData(images, np.where(labels, "cat", "ant"))
    assert words.classes == ["ant", "cat"]
    named = ArrayData(images, np.where(labels, "cat", "ant"), ["cat", "ant"])
    assert named.labels.tolist() == [1 - label for label in words.labels.tolist()]
    assert ArrayData(images, labels + 5).classes == ["5", "6"]
    assert ArrayData(images > 100, labels).pictures.take(np.arange(30)).unique().tolist() == [0.0, 1.0]
    assert open_data((images, labels)).digest == grey.digest
    assert open_data(grey) is grey


def test_arrays_far_from_zero_are_normalised_too():
    images, labels = some_images(60)
    data = ArrayData(1e6 + images.astype(np.float64) / 255, labels)
    batch = next(iter(data.train().batches(1000)))[0]
    assert abs(batch.std() - 1) < 0.2  # float32 has steps of 0.06 there
    tiny = next(iter(ArrayData(images * 1e-12, labels).train().batches(1000)))[0]
    assert abs(tiny.std() - 1) < 1e-3


def broken(change):
    images, labels = some_images(30)
    images, labels = images.astype(np.float32) / 255, labels.astype(object)
    return change(images, labels)


def spoil(value):
    def change(images, labels):
        images[17, 3, 3] = value
        return images, labels

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoil(np.nan), "NaN or infinity .first: number 17"),
        (spoil(np.inf), "NaN or infinity .first: number 17"),
        (lambda x, y: (x * 0, y), "all 30 items are identical"),
        (lambda x, y: (x[:, 0], y), r"shape \(30, 8\)"),
        (lambda x, y: (x, y[:-1]), "30 images and 29 labels"),
        (lambda x, y: (x, y * 0), "one class only"),
        (lambda x, y: (x[:4], y[:4]), "class '0' has 2 different items"),
        (lambda x, y: (x, y[:, None]), "labels have shape"),
        (lambda x, y: (x, np.where(y == 0, np.nan, 1.0)), "fractions, NaN"),
        (lambda x, y: (x, [None, *y[1:]]), "fill in what is missing"),
        (lambda x, y: ((x * 255).astype(np.int32), y), "which number is white"),
        (lambda x, y: (x.astype(str), y), "give numbers"),
        (lambda x, y: ([x[0], x[1][:3]], y[:2]), "one array"),
        (lambda x, y: (x[:0], y[:0]), "nothing in them"),
        (lambda x, y: (x.astype(np.float64) * 1e300, y), "range of float32"),
    ],
)
def test_arrays_that_cannot_be_learned_from(change, words):
    images, labels = broken(change)
    with pytest.raises(BadData, match=words) as caught:
        ArrayData(images, labels)
    assert "\n" not in str(caught.value)


def test_identical_images_are_refused_even_where_the_parts_are_given():
    from formery.data.images import Held, statistics

    with pytest.raises(BadData, match="identical"):
        statistics(Held(torch.full((9, 3, 4, 4), 7, dtype=torch.uint8)), np.arange(9), "grey")


def test_labels_outside_the_classes_and_ambiguous_layouts():
    images, labels = some_images(30)
    with pytest.raises(BadData, match="label 2 is none of the 2 classes"):
        ArrayData(images, np.arange(30) % 3, ["a", "b"])
    with pytest.raises(BadData, match="label c is none"):
        ArrayData(images, np.array(["a", "b", "c"] * 10), ["a", "b"])
    with pytest.raises(BadSpec, match="layout"):
        ArrayData(np.zeros((4, 3, 8, 3)), labels[:4])
    with pytest.raises(BadSpec, match="splits"):
        ArrayData(images, labels, splits=(0.5, 0.5, 0.5))
    with pytest.raises(BadSpec, match="batch size"):
        ArrayData(images, labels).train_batch(0, 0)
    with pytest.raises(BadSpec, match="image_size"):
        ArrayData(images, labels, image_size=0)


def test_spelling_of_parts():
    assert given_parts(["train", "val", "test"]) == {"train": "train", "val": "validation", "test": "test"}
    assert given_parts(["Training", "dev"]) == {"Training": "train", "dev": "validation"}
    assert given_parts(["train", "val", "valid"]) is None
    assert given_parts(["train", "cats"]) is None
    assert given_parts(["test", "val"]) is None
    assert given_parts(["train"]) is None


def test_calibration_images_are_training_images_as_they_are(digits):
    sample = digits.sample(20)
    train = torch.cat([images for images, _ in digits.train().batches(500)])
    assert sample.shape == (20, 1, 8, 8)
    assert all((train == image).flatten(1).all(1).any() for image in sample)


def test_load_image_needs_a_whole_preprocess(tmp_path):
    with pytest.raises(BadSpec, match="lacks fit"):
        load_image(
            tmp_path / "x.png", {"mean": [0], "std": [1], "size": [8, 8], "channels": 1, "interpolation": "bilinear"}
        )
