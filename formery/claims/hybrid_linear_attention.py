"""Claims of hybrid linear attention that need no training; `hybrid_linear_attention_learning` has the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..context import Cache
from ..measure.inputs import as_model
from ..model import Model
from ..ops import delta_rule, gated_delta_rule, gated_linear_attention, gated_scan
from ..spec import build
from ..systems.language import hybrid_linear_attention as system
from .check import Measured, Progress, check
from .comparing import BARS, relative
from .figures import counted
from .hybrid_linear_attention_learning import (
    gated_delta_rule_recalls,
    ratio_of_loss,
    ratio_of_recall,
    recall_of_generations,
    recall_order,
    swap,
)

__all__ = [
    "associative_memory", "cache", "chunks", "figures", "gated_delta_rule_recalls", "ratio_of_loss", "ratio_of_recall",
    "recall_of_generations", "recall_order", "reductions", "swap",
]  # fmt: skip

Pair = tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., tuple[Tensor, Tensor]], tuple[Any, ...]]
"""The recurrence in chunks of a length given as `chunk`, token by token, and the inputs of both."""


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("hybrid_linear_attention", progress)


def _worst(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    return max(relative(a, b) for a, b in zip(found, wanted, strict=True))


# ------------------------------------------------------------------------------------------------ chunks


@check
def chunks(seed: int, progress: Progress) -> Measured:
    """The operator of every mixer in chunks against its definition, from a state, in both precisions."""
    worst: dict[str, dict[str, float]] = {}
    for dtype in BARS:
        precision = str(dtype).removeprefix("torch.")
        progress(precision)
        for length in (1, 5, 64, 70, 131):
            for name, (in_chunks, token_by_token, inputs) in _operators(length, dtype).items():
                wanted = token_by_token(*inputs)
                error = max(_worst(in_chunks(*inputs, chunk=chunk), wanted) for chunk in (1, 5, 16, 64))
                row = worst.setdefault(name, {})
                row[precision] = max(row.get(precision, 0.0), error)
    passed = all(row[str(dtype).removeprefix("torch.")] <= bar for row in worst.values() for dtype, bar in BARS.items())
    said = "; ".join(f"{name} {row['float32']:.0e}, {row['float64']:.0e}" for name, row in worst.items())
    return Measured(worst, passed, f"largest differences of the scale in float32 and float64: {said}")


def _operators(length: int, dtype: torch.dtype) -> dict[str, Pair]:
    """By mixer, with inputs like its own."""
    B, H, K, V = 2, 3, 8, 16
    q, k = (F.normalize(torch.randn(B, length, H, K, dtype=dtype), dim=-1) for _ in range(2))
    v, beta = torch.randn(B, length, H, V, dtype=dtype), 2 * torch.rand(B, length, H, dtype=dtype)
    state = torch.randn(B, H, K, V, dtype=dtype)
    by_channel = F.logsigmoid(torch.randn(B, length, H, K, dtype=dtype))
    by_token = -F.softplus(torch.randn(B, length, H, dtype=dtype)) * torch.rand(H, dtype=dtype)
    linear = gated_linear_attention.chunked, gated_linear_attention.reference
    x, f = v.flatten(2), torch.rand(B, length, H * V, dtype=dtype)
    return {
        "HGRN": (_scan, gated_scan.reference, (x, f, torch.randn(B, H * V, dtype=dtype))),
        "retention": (*linear, (q, k, v, _retained(H).to(dtype), state)),
        "GLA": (*linear, (q, k, v, by_channel / 16, state)),
        "HGRN-2": (*linear, (q, 1 - by_channel.exp(), v, 4 * by_channel, state)),
        "DeltaNet": (delta_rule.chunked, delta_rule.reference, (q, k, v, beta, state)),
        "Gated DeltaNet": (
            gated_delta_rule.chunked,
            gated_delta_rule.reference,
            (q, k, v, by_token, beta, state),
        ),
    }


def _scan(x: Tensor, f: Tensor, state: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    h = gated_scan.forward(x, f, state, chunk)
    return h, h[:, -1]


def _retained(heads: int) -> Tensor:
    """Log of what retention's heads keep, float64."""
    return torch.log1p(-torch.exp2(-5 - torch.arange(heads, dtype=torch.float64)))


# ------------------------------------------------------------------------------------------------ reductions


@check
def reductions(seed: int, progress: Progress) -> Measured:
    """Each mixer with its gate fixed, beside the mixer that it is then: whole mixers where their weights can say so."""
    found = {
        "Gated DeltaNet without decay is DeltaNet": _without_decay(),
        "Gated DeltaNet without writes only decays": _without_writes(),
        "GLA of constant gates is retention without positions": _constant_gates(),
        "HGRN-2 of one channel a head is HGRN's recurrence": _one_channel(),
    }
    said = "; ".join(f"{name}: {error:.0e}" for name, error in found.items())
    return Measured(found, max(found.values()) <= 1e-12, said)


def _mixer(**node: Any) -> Any:
    return build("mixer", node, 32).double().eval()


@torch.no_grad()
def _without_decay() -> float:
    gated = _mixer(kind="gated_deltanet", heads=2, head_dim=8)
    plain = _mixer(kind="deltanet", heads=2, head_dim=8, value_dim=16, gate=True)
    gated.log_rate.fill_(-torch.inf)
    widths = [sum(gated.widths[:2]), gated.widths[2], gated.widths[3]]  # q, k, v and gate; the decay; beta
    rest, _, beta = gated.project.weight.split(widths)
    plain.project.weight.copy_(torch.cat([rest, beta]))
    for name in ("conv", "norm"):
        getattr(plain, name).copy_(getattr(gated, name))
    plain.out.weight.copy_(gated.out.weight)
    x = torch.randn(2, 70, 32, dtype=torch.float64)
    return relative(gated(x), plain(x))


def _without_writes() -> float:
    q, k, v, g, beta, state = _operators(70, torch.float64)["Gated DeltaNet"][2]
    o, last = gated_delta_rule.gated_delta_rule(q, k, v, g, torch.zeros_like(beta), state)
    decayed = g.cumsum(1).exp()
    wanted = decayed[..., None] * torch.einsum("blhk,bhkv->blhv", q, state)
    return _worst((o, last), (wanted, decayed[:, -1, :, None, None] * state))


@torch.no_grad()
def _constant_gates() -> float:
    retention = _mixer(kind="retention", heads=2, head_dim=8, value_dim=16, position=None)
    gla = _mixer(kind="gla", heads=2, head_dim=8, value_dim=16, smoothing=1.0)
    gla.project.weight[: retention.project.weight.shape[0]].copy_(retention.project.weight)
    gla.decay.weight.zero_()
    gla.decay.bias.copy_(torch.logit(_retained(2).exp()).repeat_interleave(8))
    gla.out.weight.copy_(retention.out.weight)
    x = torch.randn(2, 70, 32, dtype=torch.float64)
    return relative(gla(x), retention(x))


def _one_channel() -> float:
    x, f = torch.randn(2, 70, 12, dtype=torch.float64), torch.rand(2, 70, 12, dtype=torch.float64)
    state = torch.randn(2, 12, dtype=torch.float64)
    q, k, v, g = (part[..., None] for part in (torch.ones_like(x), 1 - f, x, f.log()))
    o, last = gated_linear_attention.gated_linear_attention(q, k, v, g, state[..., None, None])
    h, end = gated_scan.gated_scan((1 - f) * x, f, state)
    return _worst((o[..., 0], last[..., 0, 0]), (h, end))


# ------------------------------------------------------------------------------------------------ memory


@check
def associative_memory(seed: int, progress: Progress) -> Measured:
    """16 pairs in a memory of 16 x 16: keys that are orthonormal, written twice, and not orthogonal."""
    K = 16
    keys = torch.linalg.qr(torch.randn(K, K))[0]
    slanted = F.normalize(keys + 0.5 * torch.randn(K, K) / K**0.5, dim=-1)
    first, second = torch.randn(K, K), torch.randn(K, K)

    def kept(keys: Tensor, values: Tensor, *, corrected: bool) -> Tensor:
        """What each key gets back from a memory that all pairs were written to."""
        k, v = keys[None, :, None], values[None, :, None]
        ones = torch.ones(1, len(keys), 1)
        if corrected:
            _, memory = delta_rule.delta_rule(k, k, v, ones)
        else:
            _, memory = gated_linear_attention.gated_linear_attention(k, k, v)
        return keys @ memory[0, 0]

    twice = torch.cat([keys, keys]), torch.cat([first, second])
    found = {
        "orthonormal keys": relative(kept(keys, first, corrected=True), first),
        "written twice": relative(kept(*twice, corrected=True)[K:], second),
        "the last pair of slanted keys": relative(kept(slanted, first, corrected=True)[-1], first[-1]),
        "plain sum, orthonormal keys": relative(kept(keys, first, corrected=False), first),
        "plain sum, written twice": relative(kept(*twice, corrected=False)[K:], second),
        "plain sum, slanted keys": relative(kept(slanted, first, corrected=False), first),
    }
    right = list(found.values())[:4]
    passed = max(right) <= 1e-6 and min(list(found.values())[4:]) > 0.1
    said = "; ".join(f"{name} {error:.0e}" for name, error in found.items())
    return Measured(found, passed, f"errors of the values' scale: {said}")


@check
def cache(seed: int, progress: Progress) -> Measured:
    """Bytes of the caches of the 340M GLA hybrids, and of the rest of their state, for 64 tokens and for 65,536."""
    lengths = (64, 65536)
    full = as_model(system.spec("gla", dim=1024, depth=24, ratio=0, heads=16, vocab=32000))
    assert isinstance(full, Model)
    whole = [_bytes(full, length)[0] for length in lengths]
    shares, rest = {}, {}
    for name in system.RATIOS:
        model = as_model(f"hla_340m_gla_{name}")
        assert isinstance(model, Model)
        held = [_bytes(model, length) for length in lengths]
        shares[name] = [24 * caches / bytes_ for (caches, _), bytes_ in zip(held, whole, strict=True)]
        rest[name] = [other for _, other in held]
    expected = {"pure": 0, "24_1": 1, "12_1": 1, "6_1": 3, "3_1": 6}
    same = all(len(set(sizes)) == 1 for sizes in rest.values())
    passed = same and all(share == expected[name] for name, of in shares.items() for share in of)
    said = ", ".join(f"{name.replace('_', ':')} {of[0]:g}/24" for name, of in shares.items())
    more = f"the rest of the state of the pure model is {rest['pure'][0] / 2**20:.1f} MiB at both lengths"
    return Measured({"shares": shares, "rest": rest}, passed, f"caches {said} of {whole[1] / 2**30:.0f} GiB; {more}")


def _bytes(model: Model, tokens: int) -> tuple[int, int]:
    """Of its caches, and of the rest of its state."""
    leaves = [leaf for _, leaf in model.new_state(1, tokens).parts.leaves()]
    caches = sum(leaf.nbytes() for leaf in leaves if isinstance(leaf, Cache))
    return caches, sum(leaf.nbytes() for leaf in leaves) - caches
