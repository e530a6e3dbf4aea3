"""Text: windows that depend on (seed, step) alone, and an evaluation that counts every byte once."""

import hashlib
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formery.data import TextData, open_data
from formery.data import baselines as base
from formery.data.chance import integers, normal, permutation, uniform, words
from formery.errors import BadData, BadFile, BadSpec, UnknownName


def some_text(num: int = 4000, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(num)


@pytest.fixture(scope="module")
def pydoc() -> TextData:
    return open_data("pydoc")


def test_pydoc_is_split_by_position(pydoc):
    assert (pydoc.modality, pydoc.task, pydoc.vocab) == ("text", "language", 256)
    sizes = pydoc.describe()["splits"]
    num = sum(sizes.values())
    assert num > 300_000
    assert abs(sizes["train"] / num - 0.9) < 0.001
    assert pydoc.part("train") + pydoc.part("validation") + pydoc.part("test") == pydoc.bytes.tobytes()
    assert pydoc.digest == hashlib.sha256(pydoc.bytes.tobytes()).hexdigest()


def test_windows_are_a_pure_function_of_seed_and_step(pydoc):
    ids, targets = pydoc.train_batch(11, 4, 32)
    assert ids.shape == targets.shape == (4, 32)
    assert ids.dtype == targets.dtype == torch.int64
    assert torch.equal(ids[:, 1:], targets[:, :-1])
    pydoc.train_batch(12, 3, 8)
    np.random.seed(0)
    again = open_data("pydoc").train_batch(11, 4, 32)
    assert torch.equal(ids, again[0])
    assert torch.equal(targets, again[1])
    assert not torch.equal(ids, open_data("pydoc", seed=1).train_batch(11, 4, 32)[0])
    assert not torch.equal(ids, pydoc.train_batch(12, 4, 32)[0])


def test_training_windows_stay_in_the_training_part_and_reach_its_ends():
    text = bytes([1]) * 50 + bytes([2]) * 450 + bytes([3]) * 56
    data = TextData(text, splits=(0.9, 0.05, 0.05))
    num = data.num_bytes("train")
    ids, targets = data.train_batch(0, 5000, num - 1)
    assert (ids == ids[0]).all()
    assert targets.max() == 2
    starts = integers(data.seed, "windows", 3, 20_000, num - 8)
    assert (starts.min(), starts.max()) == (0, num - 9)


@given(
    num=st.integers(330, 900),
    length=st.integers(1, 120),
    stride=st.integers(1, 120),
    batch=st.integers(1, 9),
    part=st.sampled_from(["train", "validation", "test"]),
)
@settings(max_examples=120, deadline=None)
def test_evaluation_counts_every_byte_once_with_bounded_context(num, length, stride, batch, part):
    stride = min(stride, length)
    data = TextData(some_text(num))
    position = {name: start for name, (start, _) in data.spans.items()}[part]
    counted = []
    for ids, targets in data.windows(part, length, stride, batch_size=batch):
        assert ids.shape == targets.shape
        assert ids.shape[1] == length
        assert len(ids) <= batch
        for row, target in zip(ids, targets, strict=True):
            kept = (target >= 0).nonzero()[:, 0]
            assert len(kept) <= stride
            for place in kept.tolist():
                # What the model has seen for this target is the text just before it, and enough of it.
                at = max(position, 1) + len(counted)
                context = bytes(row[: place + 1].tolist())
                assert data.bytes[at - len(context) : at].tobytes() == context
                assert len(context) >= min(length - stride + 1, at)
                counted.append(int(target[place]))
    wanted = data.part(part)
    assert bytes(counted) == (wanted[1:] if part == "train" else wanted)


def test_bits_per_byte_from_windows_is_that_of_the_text(pydoc):
    logits = torch.randn(256, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    nats = sum(
        torch.nn.functional.cross_entropy(
            logits.expand(*targets.shape, 256).flatten(0, 1), targets.flatten(), reduction="sum"
        )
        for _, targets in pydoc.test_windows(64, batch_size=32)
    )
    direct = -logits[torch.tensor(list(pydoc.part("test")))].sum()
    assert abs(nats - direct) / direct < 1e-5


def test_text_files_and_folders(tmp_path):
    text = some_text(3000)
    (tmp_path / "one.bin").write_bytes(text)
    one = open_data(tmp_path / "one.bin")
    assert one.bytes.tobytes() == text
    folder = tmp_path / "many"
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_bytes(text[:1000])
    (folder / "b" / "c.md").write_bytes(text[1000:])
    (folder / ".hidden").write_bytes(b"no")
    many = open_data(str(folder))
    assert many.bytes.tobytes() == text
    assert many.digest == one.digest
    assert many.describe()["files"] == 2


def test_texts_given_by_part(tmp_path):
    texts = {name: some_text(400, seed) for seed, name in enumerate(("test", "train", "valid"))}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_bytes(text)
    data = open_data(tmp_path)
    assert (data.part("train"), data.part("validation"), data.part("test")) == (
        texts["train"],
        texts["valid"],
        texts["test"],
    )
    assert data.describe()["split_by"] == "files"
    (tmp_path / "valid.txt").unlink()
    cut = open_data(tmp_path)
    assert cut.part("train") + cut.part("validation") == texts["train"]
    assert cut.num_bytes("validation") == 20
    assert cut.part("test") == texts["test"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "is too short: 0 bytes"),
        ("short.txt", b"hello world", "is too short: 11 bytes"),
        ("same.txt", b"a" * 5000, "repeats the byte 97"),
        ("weights.safetensors", b"a" * 5000, "is no text"),
        ("photo.png", b"a" * 5000, "is one image"),
    ],
)
def test_texts_that_cannot_be_learned_from(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadData, match=words) as caught:
        open_data(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_windows_longer_than_the_text_are_refused(pydoc):
    data = TextData(some_text(400))
    for draw in (
        lambda: data.train_batch(0, 1, 360),
        lambda: next(data.test_windows(360)),
        lambda: data.sample(1, 400),
    ):
        with pytest.raises(BadData, match="is too short: its training part has 360 bytes"):
            draw()
    assert data.train_batch(0, 1, 359)[0].shape == (1, 359)
    with pytest.raises(BadSpec, match="stride"):
        next(pydoc.validation_windows(8, 9))
    with pytest.raises(BadSpec, match="length"):
        pydoc.train_batch(0, 1, 0)
    with pytest.raises(BadSpec, match="part"):
        pydoc.part("dev")


def test_sources_are_explained(tmp_path):
    with pytest.raises(UnknownName, match=r"no data are called 'pydocs'.*did you mean pydoc"):
        open_data("pydocs")
    with pytest.raises(BadFile, match=r"data/x.txt does not exist"):
        open_data("data/x.txt")
    with pytest.raises(BadFile, match="nowhere does not exist"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(BadData, match="is empty"):
        open_data(tmp_path)
    with pytest.raises(BadData, match="pydoc is text data for the task language, not classify"):
        open_data("pydoc", task="classify")
    with pytest.raises(UnknownName, match="did you mean language"):
        open_data("pydoc", task="languages")
    with pytest.raises(BadSpec, match="pydoc takes no option 'image_size'"):
        open_data("pydoc", image_size=3)
    with pytest.raises(BadData, match="int is no source of data"):
        open_data(3)
    with pytest.raises(BadSpec, match="open already"):
        open_data(open_data("pydoc"), splits=(0.8, 0.1, 0.1))
    (tmp_path / "a.txt").write_bytes(some_text())
    with pytest.raises(BadData, match="no sub-folders"):
        open_data(tmp_path, task="classify")
    (tmp_path / "b.png").write_bytes(some_text())
    with pytest.raises(BadData, match=r"b.png is no text"):
        open_data(tmp_path, task="language")


def test_registered_sources_open_by_name():
    from formery.registry import register, unregister

    register("data", "noise_for_a_test", f"{__name__}:noise")
    try:
        data = open_data("noise_for_a_test", seed=3, num=500)
        assert data.seed == 3
        assert len(data.bytes) == 500
    finally:
        unregister("data", "noise_for_a_test")


def noise(*, seed: int = 0, num: int = 1000) -> TextData:
    return TextData(some_text(num), seed=seed)


def test_random_numbers_are_fixed_by_seed_stream_and_step():
    # The known answer of Philox-4x64-10 for this key and counter, as numpy's bit generator and the algorithm give it.
    key = np.array([7, int.from_bytes(hashlib.sha256(b"test").digest()[:8], "little")], dtype=np.uint64)
    wanted = np.random.Philox(key=key, counter=np.array([0, 0, 0, 5], dtype=np.uint64)).random_raw(8)
    assert (words(7, "test", 5, 8) == wanted).all()
    assert (words(7, "test", 5, 4) == wanted[:4]).all()
    assert not (words(7, "test", 6, 8) == wanted).any()
    assert not (words(7, "other", 5, 8) == wanted).any()
    assert sorted(permutation(0, "epoch", 0, 100)) == list(range(100))
    many = uniform(0, "test", 0, 100_000)
    assert 0 <= many.min() < many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01
    bell = normal(0, "test", 0, 100_000)
    assert abs(bell.mean()) < 0.02
    assert abs(bell.std() - 1) < 0.02
    assert words(-1, "test", 0, 1) == words(2**64 - 1, "test", 0, 1)


def markov_by_hand(text: bytes, train: bytes, order: int) -> float:
    """Witten-Bell's recursion, one byte at a time."""
    bits, seen = 0.0, train[len(train) - order :] + text

    def chance(context: bytes, byte: int) -> float:
        below = chance(context[1:], byte) if context else 1 / 256
        after = [
            train[at + len(context)]
            for at in range(len(train) - len(context))
            if train[at : at + len(context)] == context
        ]
        kinds = len(set(after))
        return (after.count(byte) + kinds * below) / (len(after) + kinds) if after else below

    for at, byte in enumerate(text):
        bits -= np.log2(chance(seen[at : at + order], byte))
    return bits / len(text)


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_markov_models_agree_with_the_recursion(order):
    train, text = b"the cat sat on the mat and the rat ate the hat" * 2, b"the bat sat on the mat\xff"
    assert base.markov(text, train, order) == pytest.approx(markov_by_hand(text, train, order), abs=1e-12)


def test_markov_chances_sum_to_one():
    train = b"abracadabra, said the wizard" * 3
    total = sum(2 ** -base.markov(bytes([byte]), train, 3) for byte in range(256))
    assert total == pytest.approx(1, abs=1e-9)


def test_baselines_of_the_embedded_text(pydoc):
    for part in ("validation", "test"):
        found = base.text_baselines(pydoc, part)
        assert found["xz_primed"] < found["xz"] < 2.5
        assert found["markov_5"] < found["markov_3"] < 2.3
        assert 1.0 < found["xz_primed"] < 1.9


def test_baselines_of_noise_and_copies():
    noise, other = some_text(20_000), some_text(20_000, 1)
    assert 8 <= base.xz(noise) < 8.1
    assert 7.9 < base.xz_primed(other, noise) < 8.1
    assert base.xz_primed(noise[:5000], noise) < 1
    assert base.markov(other, noise, 3) > 7.9
    assert base.markov(b"ab", b"a", 5) > 0
    with pytest.raises(BadData, match="no text"):
        base.xz(b"")
