"""Test-time memories: every form is the definition, in values and gradients, for each kind of rule and network."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from formery.ops import feature_maps, newton_schulz
from formery.ops import gated_delta_rule as delta
from formery.ops import test_time_memory as rules
from formery.ops.test_time_memory import Gates, Memory, Rule, reference

pytestmark = pytest.mark.usefixtures("poisoned")

KEY, VALUE = 5, 4


class Kind(NamedTuple):
    """A rule, whether it keeps momentum, and the widths inside its network."""

    rule: Rule
    momentum: bool = False
    hidden: tuple[int, ...] = ()
    key: int = KEY


KINDS = {
    "delta": Kind(Rule(chunk=4)),
    "titans": Kind(Rule(chunk=4, residual=True, norm=True), True, (7,), VALUE),
    "omega": Kind(Rule(window=3, chunk=4)),
    "omega deep": Kind(Rule(window=6, chunk=4), False, (6, 3)),
    "atlas": Kind(Rule(window=3, chunk=5, orthogonal=True, norm=True), True, (6,)),
    "muon": Kind(Rule(chunk=3, orthogonal=True)),
    "linear": Kind(Rule("dot", window=2, chunk=8)),
    "deep linear": Kind(Rule("dot", chunk=1), False, (6,)),
}
every = pytest.mark.parametrize("kind", KINDS)
FORMS: dict[str, Callable[..., tuple[Tensor, Memory]]] = {
    "chunked": rules.chunked,
    "apart": rules.apart,
    "fastest": rules.trained_memory,
}


def draw(
    kind: str, length: int, *, batch: int = 2, heads: int = 3, opened: Any = None, dtype: torch.dtype = torch.float64
) -> tuple[Any, ...]:
    """q, k, v, gates, a memory amid its life, the rule."""
    rule, momentum, hidden, key = KINDS[kind]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    def gate(scale: float = 1.0, log: bool = False) -> Tensor:
        x = torch.rand(batch, length, heads, dtype=torch.float64)
        return (0.3 + 0.7 * x).log() if log else scale * x

    widths = [key, *hidden, VALUE]
    shapes = list(pairwise(widths)) + ([(1, VALUE)] if rule.norm else [])
    sets = [tuple(normal(batch, heads, *s) * s[0] ** -0.5 for s in shapes) for _ in range(3)]
    past = rule.window - 1
    memory = Memory(
        sets[0], sets[1], sets[2] if momentum else (), normal(batch, past, heads, key),
        normal(batch, past, heads, VALUE), torch.rand(batch, past, heads, dtype=torch.float64),
        None if opened is None else torch.tensor(opened),
    )  # fmt: skip
    gates = Gates(gate(log=True), gate(0.2), gate(log=True) if momentum else None, gate(), gate())
    tensors = [normal(batch, length, heads, w) for w in (key, key, VALUE)]
    wide = torch.promote_types(dtype, torch.float32)
    gates = Gates(*(None if g is None else g.to(wide) for g in gates))
    memory = Memory(*(tuple(w.to(wide) for w in part) for part in memory[:3]), *(t.to(wide) for t in memory[3:6]),
                    memory.open)  # fmt: skip
    return *(t.to(dtype) for t in tensors), gates, memory, rule


def flat(x: Any) -> list[Tensor]:
    """All tensors of nested tuples."""
    if isinstance(x, Tensor):
        return [x]
    return [t for part in x for t in flat(part)] if isinstance(x, tuple) else []


def rebuilt(x: Any, tensors: list[Tensor]) -> Any:
    """Nested tuples like x with other tensors."""
    if isinstance(x, Tensor):
        return tensors.pop(0)
    if isinstance(x, tuple):
        parts = [rebuilt(part, tensors) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    return x


def gradients(form: Callable[..., Any], inputs: tuple[Any, ...], lengths: Tensor | None = None) -> list[Tensor | None]:
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in flat(inputs)]
    outputs = [t for t in flat(form(*rebuilt(inputs, list(leaves)), lengths)) if t.requires_grad]
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=source, dtype=torch.float64).to(x.dtype) for x in outputs]
    wanted = [t for t in leaves if t.requires_grad]
    return list(torch.autograd.grad(outputs, wanted, weights, allow_unused=True))


def same(got: Any, expected: Any, **tolerance: float) -> None:
    for ours, theirs in zip(flat(got), flat(expected), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def same_gradients(got: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        if ours is None or theirs is None:
            assert not any(x is not None and x.any() for x in (ours, theirs))
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@every
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("length", "opened"), [(0, None), (1, [1, 1]), (11, None), (11, [2, 2]), (7, [0, 2])])
def test_values_and_gradients_are_the_definitions(form: str, kind: str, length: int, opened: Any) -> None:
    if opened is not None:
        opened = [n % KINDS[kind].rule.chunk for n in opened]
    inputs = draw(kind, length, opened=opened)
    before = [t.clone() for t in flat(inputs)]
    same(FORMS[form](*inputs), reference(*inputs))
    assert all(torch.equal(x, y) for x, y in zip(flat(inputs), before, strict=True))
    if length:
        same_gradients(gradients(FORMS[form], inputs), gradients(reference, inputs))


@every
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_different_lengths(form: str, kind: str) -> None:
    """Tokens beyond a row's own change nothing, and what is carried on is that of the row alone."""
    chunk = KINDS[kind].rule.chunk
    *tensors, gates, memory, rule = draw(kind, 9, batch=3, opened=[0, 3 % chunk, 1 % chunk])
    lengths = torch.tensor([9, 0, 4])
    got = FORMS[form](*tensors, gates, memory, rule, lengths)
    same_gradients(
        gradients(lambda *x: _real(FORMS[form](*x), lengths), (*tensors, gates, memory, rule), lengths),
        gradients(lambda *x: _real(reference(*x), lengths), (*tensors, gates, memory, rule), lengths),
    )
    for row, length in enumerate(lengths.tolist()):
        own = [x[row : row + 1, :length] for x in tensors]
        gates_, memory_ = (
            rebuilt(x, [t[row : row + 1] for t in flat(x)]) for x in (Gates(*(
                None if g is None else g[:, :length] for g in gates)), memory)
        )  # fmt: skip
        o, after = reference(*own, gates_, memory_, rule)
        torch.testing.assert_close(got[0][row : row + 1, :length], o)
        same(rebuilt(memory, [t[row : row + 1] for t in flat(got[1])]), after)


def _real(found: tuple[Tensor, Memory], lengths: Tensor) -> tuple[Tensor, Memory]:
    real = torch.arange(found[0].shape[1]) < lengths[:, None]
    return torch.where(real[..., None, None], found[0], 0.0), found[1]


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, 23), max_size=4), kind=st.sampled_from(list(KINDS)))
def test_any_split_carries_on(cuts: list[int], kind: str) -> None:
    q, k, v, gates, memory, rule = draw(kind, 23)
    whole, parts = reference(q, k, v, gates, memory, rule), []
    for begin, end in pairwise([0, *sorted(cuts), 23]):
        here = Gates(*(None if g is None else g[:, begin:end] for g in gates))
        o, memory = rules.trained_memory(*(x[:, begin:end] for x in (q, k, v)), here, memory, rule)
        parts.append(o)
    same((torch.cat(parts, 1), memory), whole)


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)], ids=str)
def test_dtypes(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    """Everything is computed in float32 at least. Steps that orthogonalise, or that an MLP takes, magnify rounding: the
    definition's own is the measure."""
    inputs = draw(kind, 20, dtype=dtype)
    got, plain = rules.trained_memory(*inputs), reference(*inputs)
    assert got[0].dtype == dtype
    assert all(w.dtype == torch.float32 for w in flat(got[1][:6]))
    exact = reference(*rebuilt(inputs, [t.double() for t in flat(inputs)]))
    for i, (ours, theirs, wanted) in enumerate(zip(flat(got)[:-1], flat(plain)[:-1], flat(exact)[:-1], strict=True)):
        if wanted.numel():
            own, error = ((x.double() - wanted).abs().max() / wanted.abs().max() for x in (theirs, ours))
            assert error <= (2e-6 if i else tolerance) + 5 * own


@pytest.mark.parametrize("kind", ["titans", "omega", "atlas", "linear"])
def test_gradients_in_float64(kind: str) -> None:
    q, k, v, gates, memory, rule = draw(kind, 5, batch=1, heads=1)
    inputs = q, k, v, gates, memory
    leaves = [t.requires_grad_() for t in flat(inputs)]

    def form(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t for t in flat(rules.chunked(*rebuilt(inputs, list(tensors)), rule)) if t.requires_grad)

    assert torch.autograd.gradcheck(form, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(form, leaves, fast_mode=True)


def test_function_transforms() -> None:
    *inputs, rule = draw("omega", 9)
    tensors = flat(tuple(inputs))
    both = [torch.stack([x, x / 2]) for x in tensors]
    got = torch.func.vmap(lambda *x: rules.trained_memory(*rebuilt(tuple(inputs), list(x)), rule)[0])(*both)
    for i, scale in enumerate((1, 2)):
        wanted = reference(*rebuilt(tuple(inputs), [x / scale for x in tensors]), rule)[0]
        torch.testing.assert_close(got[i], wanted)


# ------------------------------------------------------------------------------------------------ traced


class Op(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rule = KINDS[kind].rule

    def forward(self, q: Tensor, k: Tensor, v: Tensor, gates: Gates, memory: Memory) -> Any:
        return rules.trained_memory(q, k, v, gates, memory, self.rule)


def exported(kind: str, opened: Any) -> torch.export.ExportedProgram:
    inputs = draw(kind, 13, opened=opened)[:-1]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    token = {0: batch, 1: length}
    shapes = (token, token, token, rebuilt(inputs[3], [token] * 9), rebuilt(inputs[4], [{0: batch}] * 20))
    return torch.export.export(Op(kind), inputs, dynamic_shapes=shapes)


@pytest.mark.parametrize(("kind", "opened"), [("omega", [0, 2])])
def test_exports_with_free_batch_and_length(kind: str, opened: Any) -> None:
    program = exported(kind, opened).module()
    for batch, length in ((1, 1), (3, 22)):
        opens = None if opened is None else (opened * 2)[:batch]
        inputs = draw(kind, length, batch=batch, opened=opens)
        same(program(*inputs[:-1]), reference(*inputs))


@pytest.mark.parametrize(("length", "opened"), [(7, None), (1, [1, 3]), (3, [1, 3])])
def test_compiles(length: int, opened: Any) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(rules.trained_memory, backend="eager", fullgraph=True)
    for batch in (2, 2):
        inputs = draw("omega", length, batch=batch, opened=opened)
        same(compiled(*inputs), reference(*inputs))


# ------------------------------------------------------------------------------------------------ what it is


def test_window_one_is_the_delta_rule() -> None:
    """Card of the gated delta rule: the decay stands before the prediction there, so keys see it here as well."""
    q, k, v, gates, _, _ = draw("delta", 20)
    k = k / k.norm(dim=-1, keepdim=True)
    rule = Rule(chunk=1)
    start = torch.zeros(2, 3, KEY, VALUE, dtype=torch.float64)
    memory = rules.fresh(rule, (start[0],), 2, KEY, VALUE, momentum=False)
    plain = Gates(torch.zeros_like(gates.retain), gates.rate)
    got, after = rules.trained_memory(q, k, v, plain, memory, rule)
    wanted, state = delta.reference(q, k, v, torch.zeros_like(gates.retain), 2 * gates.rate, start)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(after.weights[0], state)


def test_the_exponential_kernel_is_softmax_attention() -> None:
    q, k, v, gates, _, _ = draw("linear", 12)
    open_gates = Gates(torch.zeros_like(gates.retain), torch.ones_like(gates.rate))
    sums = rules.by_kernel(q, k, torch.cat([v, torch.ones_like(v[..., :1])], -1), open_gates, Rule("dot"))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    torch.testing.assert_close((sums[..., :-1] / sums[..., -1:]).transpose(1, 2), wanted)


@pytest.mark.parametrize("window", [1, 3])
def test_a_plain_kernel_is_a_matrix_memory(window: int) -> None:
    q, k, v, gates, _, _ = draw("linear", 12)
    rule = Rule("dot", window=window, chunk=4)
    memory = rules.fresh(rule, (torch.zeros(3, KEY, VALUE, dtype=torch.float64),), 2, KEY, VALUE, momentum=True)
    gates = Gates(gates.retain, gates.rate, gates.retain.flip(1), gates.write, gates.weight)
    wanted = rules.trained_memory(q, k, v, gates, memory, rule)[0]
    torch.testing.assert_close(rules.by_kernel(q, k, v, gates, rule, lambda x: x), wanted)


def test_macs() -> None:
    assert rules.macs(10, 3, ((8, 6),), Rule()) == 10 * 3 * 8 * 6 * 3
    assert rules.macs(10, 3, ((8, 6),), Rule("dot")) == 10 * 3 * 8 * 6 * 2
    deep = rules.macs(1, 1, ((8, 6), (6, 4)), Rule(window=2, orthogonal=True))
    assert deep == 4 * (48 + 24) + 24 + 5 * 36 * (16 + 6) + 5 * 16 * (12 + 4)


# ------------------------------------------------------------------------------------------------ their parts


@pytest.mark.parametrize(("rows", "columns"), [(6, 15), (15, 6)])
def test_newton_schulz(rows: int, columns: int) -> None:
    x = torch.randn(4, rows, columns, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    moved = s / x.flatten(1).norm(dim=1)[:, None]
    a, b, c = newton_schulz.COEFFICIENTS
    for _ in range(newton_schulz.STEPS):  # what the iteration makes of singular values, one by one
        moved = a * moved + b * moved**3 + c * moved**5
    torch.testing.assert_close(newton_schulz.newton_schulz(x), u @ torch.diag_embed(moved) @ v)
    assert 0.6 < moved.min() < moved.max() < 1.25
    assert not newton_schulz.newton_schulz(torch.zeros(2, 3)).any()


@pytest.mark.parametrize(("dim", "degree"), [(4, 0), (4, 1), (5, 2), (3, 5)])
def test_monomials(dim: int, degree: int) -> None:
    coefficients = torch.randn(degree + 1, dtype=torch.float64)
    tables = feature_maps.tables(dim, degree)
    x, y = torch.randn(2, 7, dim, dtype=torch.float64)
    a, b = (feature_maps.polynomial(t, coefficients, tables) for t in (x, y))
    assert a.shape[-1] == feature_maps.width(dim, degree) == math.comb(dim + degree, degree)
    powers = (x @ y.mT)[..., None] ** torch.arange(degree + 1)
    torch.testing.assert_close(a @ b.mT, powers @ coefficients.square())
