"""Drawn data hold what they promise, and are the same for the same seed."""

import numpy as np
import pytest
import torch

from formery.data import open_data
from formery.data.contract import Data
from formery.data.drawn import MARKS, RELATIONS, TEXTURES, parity, relations, textures, write_textures
from formery.errors import BadSpec
from formery.registry import index


def test_textures_are_seeded_and_balanced():
    images, labels = textures(5, size=16, seed=3)
    assert images.shape == (15, 16, 16, 3)
    assert np.bincount(labels).tolist() == [5, 5, 5]
    assert (textures(5, size=16, seed=3)[0] == images).all()
    assert (textures(7, size=16, seed=3)[0][:15] == images).all()
    assert not (textures(5, size=16, seed=4)[0] == images).all()


def test_textures_cannot_be_told_by_colour():
    images, labels = textures(200, size=16)
    means = np.stack([images[labels == label].mean((0, 1, 2)) for label in range(3)])
    spread = images.mean((1, 2)).std(0)
    assert (np.abs(means - means.mean(0)) < spread).all()


def test_a_folder_of_textures_opens_as_its_classes(tmp_path):
    data = open_data(write_textures(tmp_path / "textures", 8, size=16))
    assert data.classes == list(TEXTURES)
    assert data.image_size == 16
    assert len(list((tmp_path / "textures").rglob("*.png"))) == 24


def marks_of(image):
    """{(row, column): mark} of one image, cell by cell."""
    cells = len(image) // 4
    tiles = image.reshape(cells, 4, cells, 4).transpose(0, 2, 1, 3) > 127
    return {
        place: next(mark for mark in range(4) if (tiles[place] == MARKS[mark]).all())
        for place in np.ndindex(cells, cells)
        if tiles[place].sum() > 4
    }


@pytest.mark.parametrize("cells", [8, 12])
def test_relations_hold_in_every_image(cells):
    images, labels = relations(200, seed=1, noise=0.05, cells=cells)
    for image, label in zip(images, labels, strict=True):
        marks = marks_of(image)
        near = [place for place, mark in marks.items() if mark < 2]
        far = [place for place, mark in marks.items() if mark >= 2]
        assert len(near) == 4
        assert len(far) == 8
        middle = (cells // 2 - 1, cells // 2)
        splits = [
            [{marks[place] for place in near if place[axis] == line} for line in middle]
            for axis in (0, 1)
            if {place[axis] for place in near} == set(middle)
        ]
        # In the very middle the four cells touch either line; the pair is along the one with like marks on each side.
        sides = next(found for found in splits if all(len(side) == 1 for side in found))
        corners = [{marks[place] for place in far if (place[0] < 2) == top} for top in (True, False)]
        assert all(len(found) == 1 for found in corners)
        assert {place[1] < 2 for place in far if place[0] < 2} != {
            place[1] < 2 for place in far if place[0] >= cells - 2
        }
        words = ["agree" if first == second else "differ" for first, second in (sides, corners)]
        assert RELATIONS[label] == "near {}, far {}".format(*words)


def test_no_mark_and_no_brightness_gives_the_relation_away():
    images, labels = relations(3000, cells=8, noise=0.05)
    assert np.bincount(labels).min() > 650
    counts = np.array([np.bincount(list(marks_of(image).values()), minlength=4) for image in images]) / [2, 2, 4, 4]
    for label in range(4):
        # A linear readout of a bag of patches sees these means and nothing else.
        assert np.abs(counts[labels == label].mean(0) - 1).max() < 0.12
    light = images.mean((1, 2))
    assert abs(light[labels == 0].mean() - light[labels == 3].mean()) < 0.2 * light.std()


def test_relations_of_other_steps_and_sizes():
    assert not (relations(4, step=1)[0] == relations(4, step=0)[0]).all()
    assert relations(2, cells=8)[0].shape == (2, 32, 32)
    with pytest.raises(BadSpec, match="cells"):
        relations(2, cells=9)


def test_parity_is_the_running_sum():
    bits, answer = parity(3, 5, 4, 50)
    assert bits.shape == answer.shape == (4, 50)
    state = torch.zeros(4, dtype=torch.int64)
    for bit, wanted in zip(bits.T, answer.T, strict=True):
        state = state ^ bit
        assert torch.equal(state, wanted)
    assert torch.equal(parity(3, 5, 4, 50)[0], bits)
    assert not torch.equal(parity(3, 6, 4, 50)[0], bits)
    assert 0.3 < bits.double().mean() < 0.7


@pytest.mark.parametrize("name", sorted(index("data")))
def test_every_embedded_name_opens_and_describes_itself_as_json(name):
    import json

    data = open_data(name, seed=2)
    assert isinstance(data, Data)
    described = json.loads(json.dumps(data.describe()))
    assert described["name"] == name
    assert described["seed"] == 2
    assert described["digest"] == data.digest == open_data(name).digest
    assert len(data.digest) == 64
    assert set(described["splits"]) == {"train", "validation", "test"}
    if data.modality == "image":
        images, labels = data.train_batch(0, 8)
        assert images.shape[0] == len(labels) == 8
        assert torch.isfinite(images).all()


def test_names_and_the_opener_come_without_torch():
    import subprocess
    import sys

    code = "import sys, formery.data; from formery.registry import index; index('data'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
