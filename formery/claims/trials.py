"""Small trainings on images that claims about mixers are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from ..data.drawn import relations_data
from ..data.images import ImageData
from ..model import Model
from ..tasks import task_of
from ..training import train
from .check import Progress, silent

CHANCE = 0.25
"""Of the relations."""


@dataclass(frozen=True)
class Trial:
    """What came of one training."""

    accuracy: float
    """On the test part, of the weights that were best on the validation part."""
    loss: float
    """The mean training loss since the last judgement but one."""


def trained(
    spec: Mapping[str, Any],
    data: ImageData,
    *,
    steps: int,
    seed: int,
    progress: Progress,
    learning_rate: float = 2e-3,
    batch_size: int = 32,
    change: Callable[[Model], None] | None = None,
) -> Trial:
    """Train the model of `spec`, with initial weights by fan-in (it is narrow), and judge it.

    `change` may alter the fresh model, where a claim is about something that no spec says.
    """
    task = task_of("classify")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = Model(task.fit_spec(spec, data))
        model.init_weights(None)
        if change is not None:
            change(model)

    def tell(now: Any) -> None:
        progress(f"step {now.step} of {now.steps}, accuracy {now.score:.2f}")

    result = train(
        model, data, task, steps=steps, batch_size=batch_size, learning_rate=learning_rate, eval_every=steps // 4,
        seed=seed, devices="cpu", quiet=True, on_progress=tell,
    )  # fmt: skip
    return Trial(float(task.evaluate(model, data, "test")["accuracy"]), float(result.curve[-1]["loss"]))


def without_overlap(
    mixers: Sequence[Any], *, dim: int = 32, norm: Any = "layer", position: int | None = None
) -> dict[str, Any]:
    """Four stages of one block for the relations, in which mixers alone mix space.

    Patches of 4 x 4 pixels, one merge of 2 x 2 tokens in the middle, no overlap; norms of each token alone (a norm over
    the map lets its statistics tell one token of the others); the head norms tokens before their mean, so that it
    reads a sum over tokens. A learned position may stand at the start of a stage.
    """
    merge = {"kind": "conv", "size": 2, "stride": 2, "padding": 0}
    stages = [
        {
            "kind": "stack",
            "depth": 1,
            "mixer": mixer,
            "channel": {"kind": "mlp", "ratio": 2.0},
            "scheme": {"kind": "pre", "norm": norm},
            "dim": dim,
            "merge": merge if number == 2 else None,
            "position": {"kind": "learned", "std": 0.02} if number == position else None,
        }
        for number, mixer in enumerate(mixers)
    ]
    return {
        "stem": {"kind": "conv", "dim": dim, "size": 4, "stride": 4, "padding": 0},
        "body": {"kind": "pyramid", "stages": stages},
        "head": {"kind": "classes", "norm": norm, "order": "norm_pool"},
    }


@cache
def on_relations(mixers: tuple[str, ...], seed: int, steps: int = 400, width: int = 32) -> float:
    """Test accuracy of `without_overlap` with these mixers by name.

    Weights, data and their order follow the seed, so that a training serves every claim that asks for it.
    """
    nodes = [{"kind": word, "heads": 2} if word == "attention" else word for word in mixers]
    position = mixers.index("attention") if "attention" in mixers else None
    spec = without_overlap(nodes, dim=width, position=position)
    return trained(spec, relations_data(seed=seed, num=4000), steps=steps, seed=seed, progress=silent).accuracy


def in_words(found: Mapping[str, Sequence[float]]) -> str:
    """Percentages by name, for one line."""
    return "; ".join(f"{name} {' / '.join(f'{100 * v:.1f}' for v in values)} %" for name, values in found.items())
