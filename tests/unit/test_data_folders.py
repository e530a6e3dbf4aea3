"""Folders of images: any mode and size, as they are on disk; every fault named with its file."""

import io
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from formery.data import load_image, open_data
from formery.data.decode import decode
from formery.data.drawn import write_textures
from formery.data.folders import Decoded, image_folder
from formery.data.splits import plain
from formery.errors import BadData, BadFile, BadSpec

PREPROCESS = {
    "mean": [0.0] * 3,
    "std": [1.0] * 3,
    "size": [16, 16],
    "channels": 3,
    "interpolation": "bilinear",
    "fit": "squash",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_textures(tmp_path_factory.mktemp("images") / "textures", 12, size=32)


@pytest.fixture
def folder(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "mine")


def content(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_folder_of_classes(drawn):
    data = open_data(drawn, seed=1)
    assert data.classes == ["blobs", "dots", "stripes"]
    assert (data.in_chans, data.image_size, data.task) == (3, 32, "classify")
    assert data.describe()["splits"] == {"train": 24, "validation": 6, "test": 6}
    assert data.train_batch(0, 5)[0].shape == (5, 3, 32, 32)


def test_names_and_dates_do_not_matter_but_content_does(drawn, folder):
    before = open_data(drawn)
    for number, file in enumerate(sorted(folder.rglob("*.png"), key=lambda file: random.Random(file.name).random())):
        file.rename(file.with_name(f"{number:03d}.PNG"))
    after = open_data(folder)
    assert after.digest == before.digest
    for step in range(3):
        assert torch.equal(after.train_batch(step, 8)[0], before.train_batch(step, 8)[0])
    next(folder.rglob("*.PNG")).unlink()
    assert open_data(folder).digest != before.digest


def test_a_new_image_moves_no_other_between_parts_by_more_than_rounding(drawn, folder):
    Image.new("RGB", (32, 32), "red").save(folder / "dots" / "new.png")
    before, after = open_data(drawn), open_data(folder)
    held = [{image.tobytes() for image in data.pictures.take(data.parts.test).numpy()} for data in (before, after)]
    assert len(held[0] & held[1]) >= len(held[0]) - 1


def test_decoding_on_demand_gives_the_same_batches(drawn):
    held, decoded = image_folder(drawn), image_folder(drawn, memory=0)
    assert isinstance(decoded.pictures, Decoded)
    assert held.describe() == decoded.describe()
    assert torch.equal(held.train_batch(2, 7)[0], decoded.train_batch(2, 7)[0])
    assert plain(held.parts) == plain(decoded.parts)


def test_load_image_sees_a_file_as_training_did(drawn):
    data = open_data(drawn, image_size=24)
    loaded = torch.stack([load_image(file, data.preprocess) for file in sorted(drawn.rglob("*.png"))])
    images = torch.cat([images for images, _ in data.train().batches(100)])
    assert all((loaded == image).flatten(1).all(1).any() for image in images)


def test_every_mode_becomes_the_same_picture():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    image = Image.fromarray(grey)
    wanted = decode(content(image), "grey", PREPROCESS)
    assert wanted.shape == (3, 16, 16)
    assert (wanted == grey).all()
    same = {
        "RGB": image.convert("RGB"),
        "RGBA": image.convert("RGBA"),
        "LA": image.convert("LA"),
        "P": image.convert("P"),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    for mode, other in same.items():
        assert other.mode == mode
        assert (decode(content(other), mode, PREPROCESS) == wanted).all(), mode
        assert (decode(content(other), mode, PREPROCESS | {"channels": 1}) == grey).all(), mode
    for kind in ("bmp", "webp", "tiff", "gif"):
        options = {"lossless": True} if kind == "webp" else {}
        assert (decode(content(image, kind, **options), kind, PREPROCESS) == wanted).all(), kind
    assert np.abs(decode(content(image, "jpeg", quality=100), "jpeg", PREPROCESS).astype(int) - wanted).max() < 8
    assert (decode(content(image.convert("1")), "1", PREPROCESS) == np.asarray(image.convert("1")) * 255).all()
    cmyk = decode(content(Image.new("CMYK", (16, 16)), "jpeg"), "cmyk", PREPROCESS)
    assert (cmyk == 255).all()


def test_transparency_is_seen_on_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert (decode(content(clear), "clear", PREPROCESS) == 255).all()
    half = decode(content(Image.new("RGBA", (16, 16), (0, 0, 0, 128))), "half", PREPROCESS)
    assert np.abs(half.astype(int) - 127).max() <= 1
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode(content(palette, transparency=1), "palette", PREPROCESS) == 255).all()


def test_exif_orientation_is_followed():
    image = Image.new("L", (16, 16), 0)
    image.paste(255, (0, 0, 16, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: what is on top belongs on the right
    upright = decode(content(image, exif=exif), "turned", PREPROCESS)[0]
    assert (upright[:, 12:] == 255).all()
    assert (upright[:, :12] == 0).all()


def test_squash_and_crop():
    image = Image.new("L", (64, 16), 0)
    image.paste(255, (0, 0, 16, 16))
    squashed = decode(content(image), "wide", PREPROCESS)[0]
    cropped = decode(content(image), "wide", PREPROCESS | {"fit": "crop"})[0]
    assert squashed[:, 0].min() > 200
    assert cropped.max() == 0


def test_sizes_and_channels_come_from_the_files(tmp_path):
    sizes = [(20, 20), (30, 30), (31, 29), (28, 33), (500, 40), (9, 9)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number, size in enumerate(sizes):
            noise = np.random.default_rng([number, ord(name)]).integers(0, 255, size[::-1], dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{number}.png")
    data = open_data(tmp_path)
    assert (data.in_chans, data.image_size) == (1, 28)
    assert open_data(tmp_path, in_chans=3, image_size=[8, 12]).train_batch(0, 2)[0].shape == (2, 3, 8, 12)
    Image.new("RGB", (400, 400)).save(tmp_path / "a" / "big.png")
    assert open_data(tmp_path).in_chans == 3


def test_large_images_are_reduced_to_64(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.effect_noise((200, 100), 50).save(tmp_path / name / f"{number}.png")
    assert open_data(tmp_path).image_size == 64


def test_parts_given_as_folders(drawn, tmp_path):
    for part in ("train", "val", "test"):
        write_textures(tmp_path / "all" / part, 8 if part == "train" else 4, size=16, seed=len(part))
    data = open_data(tmp_path / "all")
    assert data.classes == ["blobs", "dots", "stripes"]
    assert data.describe()["splits"] == {"train": 24, "validation": 12, "test": 12}
    assert data.describe()["split_by"] == "folders"
    shutil.rmtree(tmp_path / "all" / "val")
    assert open_data(tmp_path / "all").describe()["splits"] == {"train": 21, "validation": 3, "test": 12}
    (tmp_path / "all" / "test" / "odd").mkdir()
    with pytest.raises(BadData, match="class 'odd'"):
        open_data(tmp_path / "all")


def test_a_test_image_that_is_also_trained_on_is_reported(tmp_path):
    for part in ("train", "test"):
        write_textures(tmp_path / part, 8, size=16)
    assert open_data(tmp_path).describe()["held_out_in_training"] >= 18


def empty_class(folder):
    (folder / "cats").mkdir()
    (folder / "cats" / "notes.txt").write_text("soon")


def truncated(folder):
    file = sorted((folder / "dots").iterdir())[2]
    file.write_bytes(file.read_bytes()[:200])


def not_an_image(folder):
    (folder / "dots" / "fake.jpg").write_bytes(b"hello")


def no_bytes(folder):
    (folder / "dots" / "void.png").write_bytes(b"")


def one_class(folder):
    shutil.rmtree(folder / "dots")
    shutil.rmtree(folder / "blobs")


def too_few(folder):
    for file in sorted((folder / "dots").iterdir())[2:]:
        file.unlink()


def loose(folder):
    shutil.copy(next((folder / "dots").iterdir()), folder / "loose.png")


def identical(folder):
    for name in ("blobs", "dots", "stripes"):
        for file in (folder / name).iterdir():
            Image.new("RGB", (8, 8), "blue").save(file)


def nothing(folder):
    for name in ("blobs", "dots", "stripes"):
        for file in (folder / name).iterdir():
            file.unlink()


def directory_as_image(folder):
    for name in ("blobs", "dots", "stripes"):
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
        (folder / name / "x.png").mkdir()


def pipe(folder):
    os.mkfifo(folder / "dots" / "tap.png")


def name_of_bytes(folder):
    (folder / "dots").rename(folder / os.fsdecode(b"caf\xe9"))


FAULTS = {
    empty_class: "class folder .*cats has no images",
    truncated: "dots/00.*png is not a readable image",
    not_an_image: "fake.jpg is not a readable image",
    no_bytes: "void.png is not a readable image",
    one_class: r"one class only \(stripes\)",
    too_few: "class 'dots' has 2 different items",
    loose: "loose.png belongs to no class",
    identical: "all 36 items are identical",
    nothing: "has sub-folders, but no files in them",
    directory_as_image: "has sub-folders, but no files in them",
    pipe: "tap.png is a pipe, a socket or a device, no file; remove it",
    name_of_bytes: r"the name of class 'caf\\udce9' is no text in UTF-8; rename it",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults_are_named_in_one_line(folder, fault):
    fault(folder)
    with pytest.raises(BadData, match=FAULTS[fault]) as caught:
        open_data(folder)
    assert "\n" not in str(caught.value)
    assert "object at 0x" not in str(caught.value)


def test_all_broken_files_are_counted_or_left_out(folder):
    whole = open_data(folder)
    for number in range(1, 5):
        (folder / "dots" / f"x{number}.png").write_bytes(b"nothing")
    half = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8))
    (folder / "dots" / "x5.png").write_bytes(content(half)[:900])  # its header is whole
    said = (
        r"5 of 41 images cannot be read: .*x1\.png is not a readable .*; likewise .*x2\.png, .*, \.\.\.; 'train --skip"
    )
    with pytest.raises(BadData, match=said):
        open_data(folder)
    data = open_data(folder, broken="skip")
    assert data.digest == whole.digest
    assert data.labels.tolist() == whole.labels.tolist()
    assert torch.equal(data.batch_of(data.parts.test)[0], whole.batch_of(whole.parts.test)[0])
    assert data.describe()["broken"] == 5
    assert "broken" not in whole.describe()
    late = open_data(folder, broken="skip", memory=0)
    assert torch.equal(late.batch_of(late.parts.test)[0], whole.batch_of(whole.parts.test)[0])
    with pytest.raises(BadSpec, match="broken='skip' goes with 'content'"):
        open_data(folder, known_by="names", image_size=32, in_chans=3, broken="skip")
    for file in folder.rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(BadData, match="41 of 41 images cannot be read"):
        open_data(folder, broken="skip")


def test_broken_files_are_left_out_of_given_parts(drawn, tmp_path):
    for part in ("train", "val"):
        shutil.copytree(drawn, tmp_path / part)
    whole = open_data(tmp_path)
    (tmp_path / "train" / "blobs" / "0.png").write_bytes(b"nothing")
    data = open_data(tmp_path, broken="skip")
    assert data.describe()["broken"] == 1
    assert len(data.parts.validation) == len(whole.parts.validation)
    assert torch.equal(data.validation().labels.sort()[0], whole.validation().labels.sort()[0])


def test_constant_images_where_the_parts_are_given(tmp_path):
    for part in ("train", "val", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (8, 8), 5).save(tmp_path / part / name / f"{number}.png")
    with pytest.raises(BadData, match="identical"):
        open_data(tmp_path)


def test_images_beyond_the_limit_of_pixels(folder, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    Image.new("RGB", (60, 60)).save(folder / "dots" / "big.png")
    with pytest.raises(BadData, match=r"big.png has 60x60 pixels, more than the 3,000"):
        open_data(folder)
    with pytest.raises(BadData, match=r"big.png has 60x60 pixels"):
        load_image(folder / "dots" / "big.png", PREPROCESS)
    Image.new("RGB", (600, 60)).save(folder / "dots" / "big.png")
    with pytest.raises(BadData, match=r"big.png has more than the 6,000 pixels"):
        open_data(folder)
    assert not [warning for warning in recwarn if "Decompression" in str(warning.category)]


def test_deep_pixels_that_have_no_white_are_refused(folder):
    Image.fromarray(np.random.default_rng(0).random((8, 8)).astype(np.float32)).save(folder / "dots" / "deep.tiff")
    with pytest.raises(BadData, match=r"deep.tiff .* floating-point"):
        open_data(folder)


def test_an_unreadable_file_is_named(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(BadData, match=r"cannot read .*png: Permission denied"):
            open_data(folder)
    (folder / "dots" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(BadFile, match=r"gone.png is a link to nothing; mend the link or remove it"):
        open_data(folder)


def test_an_unreadable_folder_is_named(folder, monkeypatch):
    def refuse(path):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    scan = os.scandir
    (folder / "dots" / "inner").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    for task in (None, "classify", "language"):
        with pytest.raises(BadData, match=r"cannot read the folder .*/dots/inner: Permission denied; mend its perm"):
            open_data(folder, task=task)


def test_a_folder_of_any_name_can_be_told(drawn, folder):
    odd = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    described = open_data(odd).describe()
    assert described["name"].endswith("caf\\xe9")
    assert described["digest"] == open_data(drawn).digest
    for name in ("blobs", "dots", "stripes"):
        shutil.rmtree(odd / name)
    (odd / "note.txt").write_text("The words of a note. " * 20)
    for source in (odd / "note.txt", odd):
        assert "caf\\xe9" in open_data(source).describe()["name"]


def test_links_that_lead_back_are_walked_once(folder):
    (folder / "dots" / "again").symlink_to(folder / "dots")
    described = open_data(folder).describe()
    assert (described["copies"], sum(described["splits"].values())) == (0, 36)


def test_missing_files_and_wrong_options(folder):
    with pytest.raises(BadFile, match="does not exist"):
        load_image(folder / "none.png", PREPROCESS)
    with pytest.raises(BadSpec, match="did you mean image_size"):
        open_data(folder, imagesize=8)
    with pytest.raises(BadSpec, match="must be one of nearest"):
        open_data(folder, interpolation="cubic")
    with pytest.raises(BadSpec, match="in_chans"):
        open_data(folder, in_chans=2)
    with pytest.raises(BadData, match="is one image"):
        open_data(next(folder.rglob("*.png")))
