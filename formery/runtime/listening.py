"""Hearing a series piece by piece: what a classifier takes the whole to be, said anew at every token.

A classifier that takes the mean over time, of recurrent blocks behind a stem that looks a few frames ahead (LMUFormer,
arXiv 2402.04882, section 5), has an answer for every beginning of its series: the head's scores of the mean so far.
Each costs one step of the blocks, and comes `delay` frames after the frame that it belongs to.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..context import NOTHING, Context, State, Stream
from ..errors import CannotRun
from ..model import Model
from ..parts.heads.classes import Classes
from ..parts.stems.frame_convolutions import LookingAhead


class Listening:
    """One batch of series being heard by a model in evaluation; the model is left as it is."""

    def __init__(self, model: Model, batch: int, capacity: int = 1 << 16) -> None:
        """CannotRun where the model has no answer for a beginning, or parts that do not go on from where they were."""
        if model.training:
            raise CannotRun("a model in training normalises by what it has not heard yet; call model.eval() first")
        head = model.head
        if model.modality != "series" or not isinstance(head, Classes) or head.pool != "avg":
            raise CannotRun(f"{model.name} does not take the mean over a series; only such models can be listened with")
        if head.norm is not None and head.order == "pool_norm" and head.norm.over != "channels":
            raise CannotRun("head.norm: a norm over the batch of means knows no beginnings; norm each token alone")
        for path, mixer in model.mixers():
            if mixer.causal == "never" or mixer.streams != "any":
                raise CannotRun(f"{path} does not stream; models whose mixers all do can listen")
        self.model = model
        parts = State()
        for path, mixer in model.mixers():
            if (own := mixer.new_state(batch, capacity)) is not None:
                parts.put(path.removeprefix("body."), own)
        weight = next(model.parameters())
        stem = model.stem
        self.stem_state = stem.new_state(batch) if isinstance(stem, LookingAhead) else None
        self.stream = Stream.start(parts, batch, capacity, weight.device)
        self.total = weight.new_zeros(batch, model.num_features)
        self.ended = False

    @property
    def delay(self) -> int:
        """Frames between a frame and the scores that belong to it."""
        return getattr(self.model.stem, "delay", 0)

    def hear(self, frames: Tensor, *, last: bool = False) -> Tensor:
        """Scores (B, n, num_classes) of every beginning that these next frames (B, L, channels) complete.

        With `last` nothing follows, and the beginnings that wait for later frames are completed without.
        """
        if self.ended:
            raise CannotRun("this series has ended; begin another one")
        self.ended = last
        stem, head = self.model.stem, cast(Classes, self.model.head)
        if isinstance(stem, LookingAhead):
            assert self.stem_state is not None
            x = stem.step(frames, self.stem_state, last=last)
        else:
            x, _ = stem(frames, NOTHING)
        before = self.stream.total
        ctx = self.stream.context(Context(causal=True, memo={}), x.shape[1])
        x = head.finish(self.model.body(x, ctx, self.stream.parts).x, ctx)
        totals = self.total[:, None] + x.cumsum(1)
        if x.shape[1]:
            self.total = totals[:, -1]
        counts = before + torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        mean = totals / counts[:, None]
        return head.scores(head.norm(mean) if head.norm is not None and head.order == "pool_norm" else mean)


def beginnings(model: Model, series: Tensor) -> Tensor:
    """Scores (B, L, num_classes) of every beginning of whole series (B, L, channels), in one pass."""
    return Listening(model, series.shape[0], max(1, series.shape[1])).hear(series, last=True)
