"""The next byte of a text."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..create import model_spec
from ..errors import BadSpec
from ..model import Model
from ..spec import override, walk
from .task import KEPT_NAN, Batch, Split, Task, check_split, judging

IGNORED = -100
NUM_BYTES = 256
THEIRS = "transformers"
"""Where a model's `extra` keeps what transformers' config says beside the network: tokens that end texts, and more."""


class Language(Task):
    """Cross entropy of the next token in windows of `length` tokens.

    Judged by bits per byte: every byte of a part is predicted once, from at least half a window before it (windows
    overlap by half); by the same in nats (`loss`), and by the perplexity of a byte, exp(loss).
    """

    kind, modality = "language", "text"
    metric, unit, direction = "bits_per_byte", "bits", "lower"
    metrics = ("bits_per_byte", "perplexity", "loss", "items")

    def __init__(
        self,
        *,
        length: Annotated[int, Field(gt=0)] = 256,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        self.length = length
        self.label_smoothing = label_smoothing

    def options(self) -> dict[str, Any]:
        return {"length": self.length, "label_smoothing": self.label_smoothing}

    def check_model(self, model: nn.Module, data: Any) -> None:
        ids, _ = self.train_batch(data, 0, 1)
        with judging(model, None) as place:
            try:
                scores = model(ids.to(place))
            except IndexError as error:  # of an embedding
                raise BadSpec(
                    f"the model knows fewer than {data.vocab} kinds of tokens; build it from task.fit_spec(spec, data)"
                ) from error
            _check_scores(scores, ids, data.vocab)

    def head_spec(self, data: Any) -> dict[str, Any]:
        self.check(data)
        return {"kind": "next_token", "vocab": data.vocab}

    def fit_spec(self, spec: Any, data: Any) -> dict[str, Any]:
        self.check(data)
        resolved = model_spec(spec)
        for part in ("stem", "head"):
            if "vocab" not in resolved[part]:
                kind = resolved[part]["kind"]
                raise BadSpec(
                    f"{part} {kind!r} has no vocab: language needs a model with the stem tokens and the head next_token"
                )
        changes: dict[str, Any] = {"stem.vocab": data.vocab, "head.vocab": data.vocab}
        bound = any(role == "position" and node["kind"] == "learned" for _, role, node in walk(resolved))
        if resolved["stem"].get("length", 0) < self.length and (bound or resolved["stem"].get("length", 0)):
            changes["stem.length"] = self.length
        return override(resolved, changes)

    def train_batch(self, data: Any, step: int, batch_size: int) -> Batch:
        batch: Batch = data.train_batch(step, batch_size, self.length)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        ids, targets = batch
        scores = model(ids).float()
        return F.cross_entropy(
            scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )

    def evaluate(
        self,
        model: nn.Module,
        data: Any,
        split: Split = "validation",
        batch_size: int = 16,
        device: torch.device | str | None = None,
    ) -> dict[str, float | int]:
        self.check(data)
        check_split(split)
        from ..interop.torchvision import declare_missing_operators

        declare_missing_operators()
        from torchmetrics import MeanMetric, SumMetric

        with judging(model, device) as place:
            nats = MeanMetric(nan_strategy=KEPT_NAN).set_dtype(torch.float64).to(place)
            counted = SumMetric().set_dtype(torch.float64).to(place)
            for ids, targets in data.windows(split, self.length, batch_size=batch_size):
                ids, targets = ids.to(place), targets.to(place)
                scores = model(ids).float()
                _check_scores(scores, ids, data.vocab)
                each = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
                real = (targets != IGNORED).flatten().double()
                nats.update(each.double(), real)
                counted.update(real.sum())
            loss, num_items = float(nats.compute()), int(counted.compute())
        perplexity = math.exp(min(loss, 700.0))  # beyond it, no float holds the number
        return {"bits_per_byte": loss / math.log(2), "perplexity": perplexity, "loss": loss, "items": num_items}

    def extra(self, data: Any) -> dict[str, Any]:
        return super().extra(data) | {"vocab": data.vocab, "tokens": "bytes"}


def over_bytes(model: Model) -> bool:
    """Whether a model's tokens are bytes: as many kinds, and nothing else said of them."""
    return model.num_classes == NUM_BYTES and model.extra.get("tokens", "bytes") == "bytes"


def known_ends(model: Model) -> frozenset[int]:
    """Tokens that end texts, as the checkpoint said that the model was loaded from."""
    told = model.extra.get(THEIRS)
    ends = told.get("eos_token_id") if isinstance(told, dict) else None
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in ends if type(token) is int and 0 <= token < model.num_classes)


def _check_scores(scores: Tensor, ids: Tensor, vocab: int) -> None:
    if scores.shape[:2] != ids.shape or scores.shape[2] < vocab:
        raise BadSpec(
            f"the model gives {tuple(scores.shape)} for {tuple(ids.shape)} tokens of {vocab} kinds; "
            "build it from task.fit_spec(spec, data)"
        )
