"""What a student learns from a teacher's scores beside the labels (arXiv 1503.02531; DeiT, arXiv 2012.12877)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from ..parts.heads.distilled import DistilledScores


def from_labels(output: Tensor | tuple[Tensor, ...], labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy with labels (B,), or with shares of the classes (B, classes).

    Of a model with several classifiers it is the mean over them, for without a teacher all learn from the labels.
    """
    scores = output if isinstance(output, tuple) else (output,)
    losses = [F.cross_entropy(s.float(), labels, label_smoothing=label_smoothing) for s in scores]
    return sum(losses[1:], losses[0]) / len(losses)


def from_teacher(scores: Tensor, teacher: Tensor, form: Literal["soft", "hard"], temperature: float) -> Tensor:
    """What the student's scores (B, classes) miss of the teacher's.

    `hard`: cross entropy with the class that the teacher ranks first (DeiT, equation 3). `soft`: the Kullback-Leibler
    divergence from the teacher's probabilities, both softened by `temperature`, times its square, so that gradients
    keep their scale (DeiT, equation 2). No gradient goes to the teacher.
    """
    scores, teacher = scores.float(), teacher.detach().float()
    if form == "hard":
        return F.cross_entropy(scores, teacher.argmax(-1))
    logs = [(s / temperature).log_softmax(-1) for s in (scores, teacher)]
    return F.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True) * temperature**2


def distillation_loss(
    output: Tensor | DistilledScores,
    labels: Tensor,
    teacher: Tensor,
    *,
    form: Literal["soft", "hard"],
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 - alpha) of the labels' loss plus `alpha` of the teacher's.

    A model with two classifiers learns the labels by the first and the teacher by the second, any other both by its
    only one.
    """
    first, second = output if isinstance(output, DistilledScores) else (output, output)
    labelled = from_labels(first, labels, label_smoothing)
    return (1 - alpha) * labelled + alpha * from_teacher(second, teacher, form, temperature)
