"""What tables of language models beside transformers share: the same weights, streams that go on, the comparison."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import DynamicCache

import formery
from formery.interop.transformers import spec_from_config
from formery.measure import Comparison, Work, compare, count_macs
from formery.measure.inputs import without_values

SPECIAL: dict[str, Any] = dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id"))
"""Tokens without a meaning, so that transformers' configs take any vocabulary."""
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest difference of scores, in units of the largest."""


def hush() -> None:
    """transformers' advice on missing kernels does not belong in a table's progress."""
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def pair(kind: Any, config: Any) -> tuple[Any, formery.Model]:
    """transformers' model with random weights, and ours with the same."""
    torch.manual_seed(0)
    theirs = kind(config).eval()
    ours = formery.Model(spec_from_config(theirs.config.to_dict())).eval()
    if unplaced := ours.load_published(theirs.state_dict()):
        raise AssertionError(f"transformers' {unplaced} found no place")
    return theirs, ours


def tokens(batch: int, length: int, vocab: int) -> Tensor:
    return torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(0))


def fresh_cache(model: Any) -> dict[str, Any]:
    """The cache that transformers' model begins with, by the name that the model has for it; Mamba makes its own."""
    if "mamba" in model.config.model_type:
        return {}
    return {"past_key_values": DynamicCache(config=model.config)}


class Ours:
    """A formery stream after `ids` that starts anew when it has gone `steps` tokens."""

    def __init__(self, model: formery.Model, ids: Tensor, steps: int) -> None:
        self.model, self.ids, self.steps, self.left = model, ids, steps, 0

    def __call__(self) -> Tensor:
        batch, length = self.ids.shape
        if not self.left:
            self.state = self.model.new_state(batch, length + self.steps)
            self.model(self.ids, state=self.state)
            self.left = self.steps
        self.left -= 1
        return self.model(self.ids[:, :1], state=self.state)


class Theirs:
    """The same with transformers' cache."""

    def __init__(self, model: Any, ids: Tensor, steps: int) -> None:
        self.model, self.ids, self.steps, self.left = model, ids, steps, 0
        self.word = next(iter(fresh_cache(model)), "cache_params")

    def __call__(self) -> Tensor:
        if not self.left:
            out = self.model(self.ids, use_cache=True, **fresh_cache(self.model))
            self.cache, self.left = getattr(out, self.word), self.steps
        self.left -= 1
        return self.model(self.ids[:, :1], use_cache=True, **{self.word: self.cache}).logits


def work_of_prefill(model: formery.Model, ids: Tensor, last: int | None = None) -> int:
    """Multiply-accumulates of reading `ids`, with the scores of the `last` tokens (None: of all)."""
    macs = count_macs(model, ids).total
    unscored = 0 if last is None else ids.numel() - last * len(ids)
    return macs - unscored * model.head.scores.weight.numel()  # type: ignore[operator,union-attr]


def work_of_token(model: formery.Model, ids: Tensor) -> int:
    """Multiply-accumulates of one more token after `ids`."""
    hollow = without_values(model)
    state = hollow.new_state(len(ids), ids.shape[1] + 1)
    with torch.no_grad():
        hollow(ids.to("meta"), state=state)
    return count_macs(hollow, ids[:, :1].to("meta"), state=state).total


def bytes_read(model: nn.Module, *, each: int | None = None) -> int:
    """Bytes of the weights that a token's products read; `each` is how many a number takes in a copy."""
    layers = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    return sum(w.numel() * (each or w.element_size()) for w in layers)


def compared(
    works: Mapping[str, Work],
    dtype: torch.dtype,
    threads: int,
    seconds: float,
    loose: Mapping[str, float] | None = None,
) -> tuple[Comparison, dict[str, float]]:
    """The comparison, once all scores agree with the first's; `loose` are models that are allowed a larger error."""
    with torch.inference_mode():
        expected, *others = (work.call().float() for work in works.values())
    errors: dict[str, float] = {}
    for name, got in zip(list(works)[1:], others, strict=True):
        errors[name] = float((got - expected).abs().max() / expected.abs().max())
        allowed = (loose or {}).get(name, CLOSE[dtype])
        if errors[name] > allowed:
            raise AssertionError(f"{name} differs by {errors[name]:.1e}, allowed is {allowed:.1e}")
    return compare(works, threads=threads, seconds=seconds / 2, least=3, warmup=1), errors
