"""Data as rewrites take it: one batch, or batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..context import Context
from ..errors import BadData
from ..measure.running import evaluating
from ..model import Model


def batches_of(data: Any) -> list[Any]:
    """The batches: `data` itself if it is one (tensor, tuple of inputs and targets, mapping), else what it iterates."""
    if isinstance(data, Tensor | Mapping) or (isinstance(data, tuple) and _is_pair(data)):
        return [data]
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise BadData(f"data is a batch, or batches, of tensors, pairs or mappings, got {type(data).__name__}")
    batches = list(data)
    if not batches:
        raise BadData("data holds no batch; a rewrite that looks at data needs at least one")
    for batch in batches:
        if not (isinstance(batch, Tensor | Mapping) or _is_pair(batch)):
            raise BadData(f"a batch is a tensor, an (inputs, targets) pair or a mapping, got {type(batch).__name__}")
    return batches


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)


def inputs_of(batch: Any) -> Tensor:
    """The inputs of a batch."""
    if isinstance(batch, Tensor):
        return batch
    if isinstance(batch, Mapping):
        for name in ("input_ids", "pixel_values", "inputs"):
            if name in batch:
                return batch[name]
        raise BadData(
            f"a batch that is a mapping has input_ids, pixel_values or inputs, got {', '.join(map(str, batch))}"
        )
    return batch[0]


def targets_of(batch: Any) -> Tensor | None:
    """The targets of a batch that has any."""
    if isinstance(batch, Mapping):
        return batch.get("labels")
    return None if isinstance(batch, Tensor) else batch[1]


def run(model: nn.Module, batch: Any, ctx: Context | None = None) -> Tensor:
    """The model's scores for a batch."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(model, Model):
        output = model(inputs_of(batch).to(device), ctx=ctx)
    elif isinstance(batch, Mapping):
        known = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items() if k != "labels"}
        output = model(**known)
    else:
        output = model(inputs_of(batch).to(device))
    scores = getattr(output, "logits", output)
    if not isinstance(scores, Tensor):
        raise BadData(f"a rewrite compares scores in one tensor; this model gives {type(scores).__name__}")
    return scores


@contextmanager
def looking(model: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; every module's mode is as before afterwards."""
    with evaluating(model), torch.no_grad():
        yield
