"""Classification: specs that fit the data, metrics that agree with scikit-learn and miss no item."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import nn
from torch.nn import functional as F

import formery
from formery.data import ArrayData, open_data
from formery.errors import BadData, BadSpec, UnknownName
from formery.tasks import task_of

SPEC = {
    "stem": {"kind": "patches", "dim": 8, "size": 2},
    "body": {"kind": "stack", "layout": "pooling"},
    "head": "classes",
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.random((57, 4, 6, 3)).astype(np.float32)
    return ArrayData(images, np.arange(57) % 3, ["a", "b", "c"])


@pytest.fixture(scope="module")
def task():
    return task_of("classify")


class Table(nn.Module):
    """Scores that depend on an image alone, and are noted."""

    def __init__(self, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(72, num_classes))
        self.seen = []

    def forward(self, images):
        assert not self.training
        scores = 0.3 * images.flatten(1) @ self.weight
        self.seen.append(scores)
        return scores


def test_a_task_is_made_from_names_specs_and_itself(task):
    smooth = task_of({"kind": "classify", "label_smoothing": 0.1})
    assert smooth.describe() == {"kind": "classify", "label_smoothing": 0.1}
    assert task_of(smooth) is smooth
    assert task_of(smooth.describe()).describe() == smooth.describe()
    assert (task.metric, task.direction) == ("accuracy", "higher")


def test_unknown_tasks_and_options_are_refused():
    with pytest.raises((UnknownName, BadSpec), match="did you mean classify"):
        task_of("clasify")
    with pytest.raises(BadSpec, match=r"task\.label_smoothing.*less than 1, got 1\.5"):
        task_of({"kind": "classify", "label_smoothing": 1.5})
    with pytest.raises(BadSpec, match="did you mean label_smoothing"):
        task_of({"kind": "classify", "smoothing": 0.1})


def test_specs_are_fitted_to_the_data(task, data):
    resolved = task.fit_spec(SPEC, data)
    assert resolved["stem"]["in_chans"] == 3
    assert resolved["stem"]["img_size"] == [4, 6]
    assert resolved["head"]["num_classes"] == 3
    assert task.head_spec(data) == {"kind": "classes", "num_classes": 3}
    named = task.fit_spec("poolformer_s12", open_data("digits"))
    assert (named["stem"]["in_chans"], named["stem"]["img_size"], named["head"]["num_classes"]) == (1, 8, 10)


def test_models_and_data_of_another_kind_are_refused(task, data):
    words = {"stem": {"kind": "tokens", "dim": 8, "vocab": 16}, "body": SPEC["body"], "head": "next_token"}
    with pytest.raises(BadSpec, match="classify needs a model with an image stem"):
        task.fit_spec({**words, "body": {"kind": "stack", "layout": "attention"}}, data)
    with pytest.raises(BadData, match="for language, not for classify"):
        task.head_spec(open_data("pydoc"))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("batch_size", [4, 100])
def test_metrics_are_those_of_all_items(task, data, split, batch_size):
    model = Table(3).train()
    found = task.evaluate(model, data, split, batch_size)
    assert model.training
    scores, labels = torch.cat(model.seen), getattr(data, split)().labels
    assert found["items"] == len(labels) == len(scores)
    assert found.keys() == set(task.metrics)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(1)), abs=1e-6)
    assert found["f1"] == pytest.approx(f1_score(labels, scores.argmax(1), average="macro"), abs=1e-6)
    chances = scores.double().softmax(1)
    assert found["loss"] == pytest.approx(log_loss(labels, chances, labels=[0, 1, 2]), rel=1e-5)
    confidence, right = chances.max(1).values, scores.argmax(1) == labels
    bins = (confidence * 15).long()
    gaps = [
        (right[bins == b].double().mean() - confidence[bins == b].mean()).abs() * (bins == b).sum()
        for b in bins.unique()
    ]
    assert found["calibration_error"] == pytest.approx(float(sum(gaps)) / len(labels), abs=1e-5)
    assert task.score(found) == found["accuracy"]


def test_the_loss_is_smoothed_in_training_only(data):
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    images, labels = data.train_batch(0, 8)
    smooth = task_of({"kind": "classify", "label_smoothing": 0.3})
    scores = model(images).log_softmax(1)
    wanted = -(0.7 * scores[range(8), labels] + 0.3 * scores.mean(1)).mean()
    assert smooth.loss(model, (images, labels)).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert smooth.evaluate(model, data)["loss"] == task_of("classify").evaluate(model, data)["loss"]
    found = torch.cat([model(x) for x, _ in data.validation_batches(7)])
    plain = F.cross_entropy(found, data.validation().labels)
    assert smooth.evaluate(model, data)["loss"] == pytest.approx(plain.item(), rel=1e-5)


def test_a_head_for_other_classes_is_refused(task, data):
    model = formery.create_model(task.fit_spec(SPEC, data), num_classes=5)
    with pytest.raises(BadSpec, match=r"3 classes; build it from task\.fit_spec"):
        task.evaluate(model, data)
    with pytest.raises(BadSpec, match="is none of train, validation, test"):
        task.evaluate(model, data, "held out")


def test_a_saved_model_knows_what_it_needs(task, data):
    extra = task.extra(data)
    assert extra["classes"] == ["a", "b", "c"]
    assert extra["task"] == task.describe()
    assert extra["preprocess"]["mean"] == data.preprocess["mean"]
    assert extra["data"] == {"name": "arrays", "digest": data.digest}
