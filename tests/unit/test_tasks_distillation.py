"""Learning from a teacher: the losses are the paper's, and a model with two classifiers takes and gives them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import formery
from formery.errors import BadSpec, CannotRun
from formery.parts.heads.distilled import DistilledScores
from formery.parts.heads.head import Features
from formery.spec import build
from formery.tasks import task_of
from formery.tasks.distillation import distillation_loss, from_labels, from_teacher

LABELS = torch.tensor([0, 2, 1, 1])


def scores(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_a_hard_teacher_is_a_label() -> None:
    student, teacher = scores(0), scores(1)
    torch.testing.assert_close(from_teacher(student, teacher, "hard", 1.0), F.cross_entropy(student, teacher.argmax(1)))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_soft_teacher_is_a_distribution(temperature: float) -> None:
    student, teacher = scores(0), scores(1)
    found = from_teacher(student, teacher, "soft", temperature)
    p, q = ((s / temperature).softmax(1) for s in (teacher, student))
    torch.testing.assert_close(found, temperature**2 * (p * (p / q).log()).sum(1).mean())
    assert from_teacher(student, student, "soft", temperature).abs() < 1e-6
    found.backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_each_classifier_learns_from_its_own() -> None:
    output, teacher = DistilledScores(scores(0), scores(1)), scores(2)
    found = distillation_loss(output, LABELS, teacher, form="hard", alpha=0.25, temperature=1.0)
    wanted = 0.75 * F.cross_entropy(output.scores, LABELS) + 0.25 * from_teacher(output.distilled, teacher, "hard", 1.0)
    torch.testing.assert_close(found, wanted)
    alone = distillation_loss(output.scores, LABELS, teacher, form="soft", alpha=0.5, temperature=2.0)
    torch.testing.assert_close(
        alone, (F.cross_entropy(output.scores, LABELS) + from_teacher(output.scores, teacher, "soft", 2.0)) / 2
    )
    mean = (F.cross_entropy(output.scores, LABELS) + F.cross_entropy(output.distilled, LABELS)) / 2
    torch.testing.assert_close(from_labels(output, LABELS), mean)


SPEC = {
    "stem": {"kind": "patches", "dim": 8, "size": 2, "img_size": 8},
    "body": {"kind": "stack", "layout": "pooling"},
    "head": {"kind": "distilled", "num_classes": 3},
}


def test_a_model_with_two_classifiers() -> None:
    """Two outputs in training, their mean else; both are reset; both learn in the task."""
    model, images = formery.create_model(SPEC), torch.randn(4, 3, 8, 8)
    output = model.train()(images)
    assert isinstance(output, DistilledScores)
    assert torch.equal(model.eval()(images), (output.scores + output.distilled) / 2)
    assert not torch.equal(output.scores, output.distilled)
    task_of("classify").loss(model.train(), (images, LABELS)).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.reset_classifier(5)
    assert [s.shape for s in model(images)] == [(4, 5), (4, 5)]
    assert model.eval()(images).shape == (4, 5)
    model.reset_classifier(0)
    assert model.train()(images).shape == (4, 8)
    assert not [name for name, _ in model.named_parameters() if "fc" in name]


def test_two_tokens_for_two_classifiers() -> None:
    """DeiT's: each classifier reads its own token."""
    spec = SPEC | {
        "body": {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 2}, "prefix": 2},
        "head": {"kind": "distilled", "num_classes": 3, "pool": "token"},
    }
    model, images = formery.create_model(spec).eval(), torch.randn(2, 3, 8, 8)
    tokens = model.forward_features(images)
    wanted = (model.head.fc(tokens[:, 0]) + model.head.fc_distilled(tokens[:, 1])) / 2
    torch.testing.assert_close(model(images), wanted)
    torch.testing.assert_close(model.forward_head(tokens), wanted)
    assert model.forward_head(tokens, pre_logits=True).shape == (2, 2, 8)
    with pytest.raises(BadSpec, match=r"'token' needs 2 prefix tokens; set body\.prefix to 2"):
        formery.create_model(spec | {"body": spec["body"] | {"prefix": 1}})
    with pytest.raises(CannotRun, match="a class and a distillation token"):
        build("head", spec["head"], 8)(Features(torch.zeros(1, 4, 8), (2, 2)), None)
