"""Memories trained while they read, under somebody's weights: recorded outputs of titans-pytorch (no official code).

Its memory is ours with other gates. All gradients of a call are taken at the first weights, so that a chunk is the
whole call; momentum and decay act once a chunk of its own, on the sum of the chunk's gradients: on its last token, with
a window of the chunk's length. A query reads what the token before it left, the last of a chunk what it left itself:
that is the weights behind its own token.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery.ops import test_time_memory as rules
from formery.ops.rms_norm import rms_norm
from tests import goldens

GOLDEN = "titans_neural_memory"
HEADS, WIDTH, CHUNK, DIM = 2, 8, 4, 16
EPS = torch.finfo(torch.float32).eps


def retrieved(x: Tensor, theirs: dict[str, Tensor]) -> Tensor:
    """What a call of theirs on x (B, T, C) gives, T a multiple of the chunk."""
    B, T, _ = x.shape
    stored, asked = (rms_norm(x, theirs[f"{name}_norm.weight"], EPS) for name in ("store", "retrieve"))

    def heads(tokens: Tensor, name: str) -> Tensor:
        return F.linear(tokens, theirs[f"{name}.weight"]).unflatten(-1, (HEADS, WIDTH))

    def gate(tokens: Tensor, name: str) -> Tensor:
        return F.linear(tokens, theirs[f"{name}.0.weight"], theirs[f"{name}.0.bias"])

    means = stored.unflatten(1, (-1, CHUNK)).mean(2)
    last = torch.arange(T) % CHUNK == CHUNK - 1

    def at_ends(of_chunks: Tensor) -> Tensor:
        return of_chunks.repeat_interleave(CHUNK, dim=1) * last[:, None]

    once = last[None, :, None].expand(B, T, HEADS).to(x.dtype)
    gates = rules.Gates(
        retain=at_ends(F.logsigmoid(-gate(means, "to_decay_factor"))),
        rate=once,
        momentum=at_ends(F.logsigmoid(gate(means, "to_momentum"))),
        write=once,
        weight=gate(stored, "to_adaptive_step").sigmoid() / WIDTH,
    )
    rule = rules.Rule(window=CHUNK, chunk=T, residual=True, norm=True)
    gain, inward, outward = (theirs[f"memory_model_parameters.{i}"] for i in range(3))
    memory = rules.fresh(rule, (inward, outward, gain[:, None]), B, WIDTH, WIDTH, momentum=True)
    q, k, v = heads(asked, "to_queries"), heads(stored, "to_keys"), heads(stored, "to_values")
    o, _ = rules.trained_memory(q, k, v, gates, memory, rule)
    o = o * F.linear(asked, theirs["retrieve_gate.0.weight"]).sigmoid()[..., None]
    return F.linear(o.flatten(2), theirs["combine_heads.weight"])


def test_recorded_outputs() -> None:
    """The tensors under `memory_model` are listed and filled, but nothing reads them: the memory starts from its
    parameters by head."""
    facts = goldens.facts(GOLDEN)
    theirs = goldens.state_from(facts["tensors"])
    assert sum(t.numel() for t in theirs.values()) == facts["params"]
    x = goldens.normal((2, 16, DIM), seed=0)
    for dtype in (torch.float32, torch.float64):
        y = retrieved(x.to(dtype), {name: t.to(dtype) for name, t in theirs.items()})
        assert goldens.worst_error(GOLDEN, {"retrieved": y}) < 1e-6
    theirs["to_momentum.0.bias"] += 1
    assert goldens.worst_error(GOLDEN, {"retrieved": retrieved(x, theirs)}) > 1e-4


@pytest.mark.parametrize("form", [rules.reference, rules.trained_memory])
def test_the_published_delta_rule_is_window_one(form: Callable[..., tuple[Tensor, rules.Memory]]) -> None:
    """What flash-linear-attention's plain delta rule gives, by a matrix that is trained online, its steps halved."""
    B, L, H, K, V, seed = 2, 37, 2, 8, 6, 20
    q, k = (goldens.normal((B, L, H, K), seed + i) for i in (0, 1))
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    beta, start = goldens.normal((B, L, H), seed + 3).sigmoid(), goldens.normal((B, H, K, V), seed + 6)
    rule = rules.Rule(chunk=1)
    memory = rules.fresh(rule, (torch.zeros(H, K, V),), B, K, V, momentum=False)._replace(weights=(start,))
    gates = rules.Gates(torch.zeros_like(beta), beta / 2)
    o, after = form(q * K**-0.5, k, goldens.normal((B, L, H, V), seed + 2), gates, memory, rule)
    recorded = goldens.recorded("linear_ops")
    for got, key in ((o, "delta"), (after.weights[0], "delta_state")):
        torch.testing.assert_close(got.flatten(), torch.from_numpy(recorded[key]["head"]), rtol=1e-5, atol=1e-6)
