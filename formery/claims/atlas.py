"""Claims of Titans and Atlas about their memories; what memories hold is in `atlas_recall`."""

from __future__ import annotations

import math
from itertools import pairwise, product

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops import feature_maps, newton_schulz
from ..ops import gated_delta_rule as delta
from ..ops import test_time_memory as rules
from .atlas_recall import capacity, window
from .check import Measured, Progress, check
from .comparing import relative
from .figures import counted

__all__ = [
    "capacity", "chunks", "delta_rule", "features", "figures", "orthogonal", "softmax", "window",
]  # fmt: skip

Inputs = tuple[Tensor, Tensor, Tensor]


@check
def figures(seed: int, progress: Progress) -> Measured:
    """Parameters and multiply-accumulates of all variants."""
    return counted("atlas", progress)


def drawn(length: int, key: int, value: int, dtype: torch.dtype, heads: int = 2) -> Inputs:
    """q, k (of length 1) and v."""
    q, k = (F.normalize(torch.randn(2, length, heads, key, dtype=dtype), dim=-1) for _ in range(2))
    return q, k, torch.randn(2, length, heads, value, dtype=dtype)


def gates_of(k: Tensor, rate: float, *, momentum: bool = False, window: int = 1) -> rules.Gates:
    """Gates as a mixer draws them, steps up to `rate`."""
    raw = [torch.randn_like(k[..., 0]) for _ in range(4)]
    return rules.Gates(
        F.logsigmoid(raw[0] + 3),
        rate * raw[1].sigmoid(),
        F.logsigmoid(raw[2] + 1) if momentum else None,
        None,
        raw[3].sigmoid() if window > 1 else None,
    )


@check
def delta_rule(seed: int, progress: Progress) -> Measured:
    """A matrix memory with window 1 and chunk 1 against the delta rule, beta twice the step, with decay and without.

    The memory's error is that of the weights before their decay, the gated delta rule's of those behind it: with
    decay alpha they are one for values alpha v and beta 2 rate / alpha.
    """
    found = {}
    for dtype in (torch.float32, torch.float64):
        q, k, v = drawn(70, 8, 6, dtype)
        gates, rule = gates_of(k, 0.5), rules.Rule(chunk=1)
        memory = rules.fresh(rule, (torch.zeros(2, 8, 6, dtype=dtype),), 2, 8, 6, momentum=False)
        kind = str(dtype).removeprefix("torch.")
        for name, retain in (("plain", torch.zeros_like(gates.retain)), ("decaying", gates.retain)):
            alpha = retain.exp()
            ours = rules.trained_memory(q, k, v, gates._replace(retain=retain), memory, rule)
            theirs = delta.gated_delta_rule(q, k, v * alpha[..., None], retain, 2 * gates.rate / alpha)
            worst = max(relative(ours[0], theirs[0]), relative(ours[1].weights[0], theirs[1]))
            found[f"{name} {kind}"] = worst
    passed = all(error <= (1e-5 if "32" in name else 1e-10) for name, error in found.items())
    said = ", ".join(f"{name} {error:.1e}" for name, error in found.items())
    return Measured(found, passed, f"largest differences of the scale: {said}")


@check
def features(seed: int, progress: Progress) -> Measured:
    """Inner products of monomials against polynomials of inner products; the exponential's series against it."""
    dim, found = 6, {}
    x, y = F.normalize(torch.randn(2, 64, dim, dtype=torch.float64), dim=-1)
    inner = x @ y.mT
    for degree in (1, 2, 3, 4, 6):
        tables = feature_maps.tables(dim, degree)
        coefficients = torch.randn(degree + 1, dtype=torch.float64)
        phi, psi = (feature_maps.polynomial(t, coefficients, tables) for t in (x, y))
        wanted = (inner[..., None] ** torch.arange(degree + 1)) @ coefficients.square()
        found[f"gram {degree}"] = relative(phi @ psi.mT, wanted)
        phi, psi = (feature_maps.polynomial(t, feature_maps.exponential(degree), tables) for t in (x, y))
        first = inner.abs() ** (degree + 1) / math.factorial(degree + 1)
        rounding = 1e-14  # where keys are nearly orthogonal, the rest is less than that of sums near 1
        found[f"rest {degree}"] = ((phi @ psi.mT - inner.exp()).abs() / (first + rounding)).max().item()
    gram, rest = (max(value for name, value in found.items() if name.startswith(kind)) for kind in ("gram", "rest"))
    said = f"Gram matrices differ by {gram:.1e} of the scale; the series' rest is up to {rest:.2f} of its next term"
    return Measured(found, gram <= 1e-5 and rest < 2, said)


@check
def orthogonal(seed: int, progress: Progress) -> Measured:
    """Singular values and vectors before and after five steps of Newton-Schulz."""
    found: dict[str, float] = {}
    low, high, turned = 2.0, 0.0, 0.0
    for rows, columns in ((16, 32), (64, 16), (32, 128), (48, 100)):
        x = torch.randn(20, rows, columns, dtype=torch.float64)
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        y = newton_schulz.newton_schulz(x)
        inside = u.mT @ y @ v.mT
        moved = inside.diagonal(dim1=-2, dim2=-1)
        turned = max(turned, relative(u @ torch.diag_embed(moved) @ v, y))
        low, high = min(low, moved.min().item()), max(high, moved.max().item())
    square = newton_schulz.newton_schulz(torch.randn(50, 32, 32, dtype=torch.float64))
    basis = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64))[0]
    found = {
        "smallest": low, "largest": high, "vectors": turned,
        "smallest of squares": torch.linalg.svdvals(square).min().item(),
        "orthogonal 16": torch.linalg.svdvals(newton_schulz.newton_schulz(basis)).mean().item(),
    }  # fmt: skip
    passed = low >= 0.6 and high <= 1.25 and turned <= 1e-10 and abs(found["orthogonal 16"] - 0.71) < 0.01
    said = (
        f"singular values {low:.2f} to {high:.2f} where one side is twice the other or more, vectors differ by "
        f"{turned:.0e}; squares reach down to {found['smallest of squares']:.2f}, an orthogonal 16 x 16 goes to "
        f"{found['orthogonal 16']:.2f}"
    )
    return Measured(found, passed, said)


KINDS: dict[str, tuple[rules.Rule, tuple[int, ...], bool]] = {
    "titans": (rules.Rule(residual=True), (16,), True),
    "omega": (rules.Rule(window=5), (), False),
    "atlas": (rules.Rule(window=3, orthogonal=True), (12,), True),
    "deep linear": (rules.Rule("dot", window=2), (12,), False),
}


@check
def chunks(seed: int, progress: Progress) -> Measured:
    """Each rule by chunks against torch's own gradients token by token, at several chunks; and against the rule online.

    Online is chunk 1: there both say the same; other chunks are other rules, which the last figure shows.
    """
    found: dict[str, float] = {}
    length, width = 40, 8
    for dtype, (name, (base, hidden, momentum)) in product((torch.float32, torch.float64), KINDS.items()):
        kind = str(dtype).removeprefix("torch.")
        progress(f"{name} {kind}")
        q, k, v = drawn(length, width, width, dtype)
        gates = gates_of(k, 0.1, momentum=momentum, window=base.window)
        widths = (width, *hidden, width)
        first = tuple(torch.randn(2, *s, dtype=dtype) * s[0] ** -0.5 for s in pairwise(widths))
        outputs = {}
        for chunk in (1, 7, 16, length):
            rule = rules.Rule(**{**vars(base), "chunk": chunk})
            memory = rules.fresh(rule, first, 2, width, width, momentum=momentum)
            outputs[chunk], _ = rules.chunked(q, k, v, gates, memory, rule)
            wanted, _ = rules.reference(q, k, v, gates, memory, rule)
            error = relative(outputs[chunk], wanted)
            found[f"{name} {kind}"] = max(found.get(f"{name} {kind}", 0.0), error)
        found[f"{name} apart"] = relative(outputs[16], outputs[1])
    exact = {name: value for name, value in found.items() if "float" in name}
    passed = all(value <= (1e-5 if "32" in name else 1e-10) for name, value in exact.items())
    passed = passed and all(value > 1e-3 for name, value in found.items() if name.endswith("apart"))
    said = ", ".join(f"{name} {value:.1e}" for name, value in exact.items())
    online = min(value for name, value in found.items() if name.endswith("apart"))
    return Measured(found, passed, f"largest differences of the scale: {said}; chunk 16 is {online:.2f} off chunk 1")


@check
def softmax(seed: int, progress: Progress) -> Measured:
    """A matrix memory of endless features, over the same memory of ones, against softmax attention; then with the
    features cut off at several degrees."""
    q, k, v = drawn(50, 4, 6, torch.float32)
    q, k = 1.5 * q, 1.5 * k
    ones = torch.zeros(2, 50, 2)
    gates, rule = rules.Gates(ones, ones + 1), rules.Rule("dot")
    by_head = [x.transpose(1, 2) for x in (q, k, v)]
    wanted = F.scaled_dot_product_attention(by_head[0], by_head[1], by_head[2], is_causal=True, scale=1.0)
    both = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)

    def normalised(o: Tensor) -> float:
        return relative((o[..., :-1] / o[..., -1:]).transpose(1, 2), wanted)

    found = {"endless": normalised(rules.by_kernel(q, k, both, gates, rule))}
    for degree in (2, 4, 8):
        tables = feature_maps.tables(4, degree)
        asked, stored = (feature_maps.polynomial(x, feature_maps.exponential(degree, x.dtype), tables) for x in (q, k))
        width = asked.shape[-1]
        memory = rules.fresh(rule, (torch.zeros(2, width, 7),), 2, width, 7, momentum=False)
        found[f"degree {degree}"] = normalised(rules.trained_memory(asked, stored, both, gates, memory, rule)[0])
    falling = found["degree 2"] > found["degree 4"] > found["degree 8"]
    said = ", ".join(f"{name} {error:.1e}" for name, error in found.items())
    return Measured(found, found["endless"] <= 1e-5 and falling, f"differences of the scale: {said}")
