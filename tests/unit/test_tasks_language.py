"""Language: bits per byte counts every byte once, and says what the probabilities say."""

import math

import pytest
import torch
from torch import nn

import formery
from formery.data import TextData
from formery.errors import BadData, BadSpec
from formery.tasks import task_of

TEXT = bytes((i * i // 7) % 61 + 40 for i in range(1500))


@pytest.fixture(scope="module")
def data():
    return TextData(TEXT, splits=(0.6, 0.2, 0.2))


class Fixed(nn.Module):
    """Probabilities of the next byte that do not depend on anything."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.linspace(-1, 1, 256))

    def forward(self, ids):
        return self.scores.expand(*ids.shape, 256)


@pytest.mark.parametrize(("length", "batch_size"), [(16, 3), (33, 16), (200, 1)])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_byte_counts_once(data, length, batch_size, split):
    task, model = task_of({"kind": "language", "length": length}), Fixed()
    found = task.evaluate(model, data, split, batch_size)
    part = data.part(split)[1 if split == "train" else 0 :]  # nothing stands before the first byte
    bits = -sum(model.scores.log_softmax(0).double()[byte].item() for byte in part) / len(part) / math.log(2)
    assert found["items"] == len(part)
    assert found["bits_per_byte"] == pytest.approx(bits, rel=1e-6)
    assert found["loss"] == pytest.approx(bits * math.log(2), rel=1e-6)
    assert found["perplexity"] == pytest.approx(2**bits, rel=1e-6)
    assert task.score(found) == -found["bits_per_byte"]
    assert found.keys() == set(task.metrics)


def test_perplexity_is_that_of_torchmetrics(data):
    from torchmetrics.text import Perplexity

    task = task_of({"kind": "language", "length": 32})
    model = nn.Sequential(nn.Embedding(256, 16), nn.Linear(16, 256))
    theirs = Perplexity(ignore_index=-100)
    for ids, targets in data.windows("validation", 32):
        theirs.update(model(ids), targets)
    assert task.evaluate(model, data)["perplexity"] == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_specs_are_fitted_to_the_data(data):
    task = task_of({"kind": "language", "length": 48})
    body = {
        "kind": "stack",
        "layout": "attention",
        "blocks": {"attention": {"mixer": {"kind": "attention", "heads": 2}}},
    }
    spec = {"stem": {"kind": "tokens", "dim": 8, "vocab": 50}, "body": body, "head": "next_token"}
    resolved = task.fit_spec(spec, data)
    assert (resolved["stem"]["vocab"], resolved["head"]["vocab"], resolved["stem"]["length"]) == (256, 256, 0)
    learned = task.fit_spec({**spec, "body": {**body, "position": "learned"}}, data)
    assert learned["stem"]["length"] == 48
    model = formery.create_model(learned)
    assert task.evaluate(model, data)["items"] == data.num_bytes("validation")
    assert task.head_spec(data) == {"kind": "next_token", "vocab": 256}
    longer = {**spec, "stem": {**spec["stem"], "length": 99}}
    assert task.fit_spec(longer, data)["stem"]["length"] == 99


def test_models_of_another_kind_are_refused(data):
    task = task_of("language")
    images = {"stem": {"kind": "patches", "dim": 8, "size": 2}, "body": {"kind": "stack", "layout": "pooling"}}
    with pytest.raises(BadSpec, match="stem 'patches' has no vocab"):
        task.fit_spec({**images, "head": "classes"}, data)
    with pytest.raises(BadData, match="windows of 2000"):
        task_of({"kind": "language", "length": 2000}).evaluate(Fixed(), data)


def test_the_loss_learns_the_text(data):
    task = task_of({"kind": "language", "length": 32})
    model = nn.Embedding(256, 256)
    ids, targets = task.train_batch(data, 3, 4)
    assert ids.shape == targets.shape == (4, 32)
    assert torch.equal(ids[:, 1:], targets[:, :-1])
    task.loss(model, (ids, targets)).backward()
    assert model.weight.grad.abs().sum() > 0
