"""Gated linear attention: decays of every kind and strength, and what the authors' implementations give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery.ops import gated_linear_attention as rule
from formery.ops.gated_linear_attention import gated_linear_attention, reference
from formery.ops.gated_linear_attention.chunked import MOST, cut, spans
from tests.contract.recurrences import double, gradients, named
from tests.contract.recurrences import linear as draw
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS = named("gated_linear_attention").forms
OTHERS = ("token", "head", "none")
"""What may have a decay of its own beside each key channel."""


def test_all_ways_of_a_chunk_are_taken() -> None:
    """The decays of the contract's tests of forms reach the split, the pieces and the decays written out."""

    def ways(kind: str, depth: float) -> set[tuple[bool, bool]]:
        torch.manual_seed(0)
        q, k, v, g, _ = draw(64, kind=kind, depth=depth)
        assert g is not None
        tokens = cut((q, k, v, g if kind == "channel" else g[..., None]), 0, 64, torch.float64)
        return {(span.end - span.start == 64, span.explicit) for span in spans(tokens, 0, 64)}

    assert ways("channel", 0.5) == ways("token", 0.5) == {(True, False)}
    assert ways("channel", 4.0) == {(False, False)}
    assert (False, True) in ways("channel", 30.0)
    assert ways("token", 30.0) == {(True, True)}


@pytest.mark.parametrize("name", ["gla", "simple_gla", "retention"])
@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str, name: str) -> None:
    """What the flash-linear-attention project's plain implementations give; of retention no state is recorded."""
    B, L, H, K, V, seed = 2, 37, 2, 8, 6, 20
    q, k = (normal((B, L, H, K), seed + i) for i in (0, 1))
    q, k = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for x in (q, k))
    decays = {
        "gla": F.logsigmoid(normal((B, L, H, K), seed + 5)) / 16,
        "simple_gla": F.logsigmoid(normal((B, L, H), seed + 4)),
        "retention": torch.log1p(-(2.0 ** (-5 - torch.arange(H)))),
    }
    start = normal((B, H, K, V), seed + 6) * (name != "retention")
    o, state = {"reference": reference, **FORMS}[form](
        q * K**-0.5, k, normal((B, L, H, V), seed + 2), decays[name], start
    )
    golden = recorded("linear_ops")
    for got, key in ((o, name), (state, f"{name}_state"))[: 1 if name == "retention" else 2]:
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["channel", "token"])
def test_extreme_decay_is_exact_and_finite(kind: str) -> None:
    """A decay that forgets everything, next to none at all: exp(-c) would overflow and meet a zero."""
    q, k, v, g, state = draw(70, kind=kind, dtype=torch.float32)
    assert g is not None
    inputs = (q, k, v, torch.where(torch.rand_like(g) < 0.2, -1e4, 0.0), state)
    exact = reference(*double(inputs))
    for form in FORMS.values():
        for got, expected in zip(form(*inputs), exact, strict=True):
            assert (got.double() - expected).abs().max() <= 2e-6 * expected.abs().max()
        assert all(x.isfinite().all() for x in gradients(form, inputs))


@pytest.mark.parametrize("kind", ["channel", "token"])
def test_decays_at_the_border_of_splitting_keep_their_digits(kind: str) -> None:
    """The fall of a chunk just within what is split: the largest exponents that the split form has."""
    q, k, v, g, state = draw(64, kind=kind, dtype=torch.float32)
    assert g is not None
    inputs = (q, k, v, torch.full_like(g, -MOST / 64), state)
    for got, expected in zip(rule.chunked(*inputs, chunk=64), reference(*double(inputs)), strict=True):
        assert (got.double() - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_gradients_in_float64_and_second_gradients() -> None:
    for kind in ("channel", *OTHERS):
        for depth in (0.5, 30.0):
            inputs = draw(5, kind=kind, depth=depth, batch=1, heads=1, key=2, value=2)
            given_ = [x.requires_grad_() for x in inputs if x is not None]

            def form(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
                return rule.chunked(q, k, v, rest[0] if len(rest) == 2 else None, rest[-1], chunk=4)

            assert torch.autograd.gradcheck(form, given_)
            assert torch.autograd.gradgradcheck(form, given_)


@pytest.mark.parametrize("kind", OTHERS)
def test_compiles_in_one_graph_for_all_lengths(kind: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(gated_linear_attention, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.compiler.set_stance("default"):
        for length in (130, 20, 70):
            inputs = draw(length, kind=kind)
            with torch._dynamo.config.patch(error_on_recompile=length != 130):
                torch.testing.assert_close(compiled(*inputs), reference(*inputs))
    inputs = draw(33, kind=kind)
    torch.testing.assert_close(gradients(compiled, inputs), gradients(reference, inputs))


class Rule(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        return gated_linear_attention(q, k, v, g, state)


def export(kind: str) -> torch.export.ExportedProgram:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    token = {0: batch, 1: length}
    shapes = (token, token, token, {"none": None, "head": {}}.get(kind, token), {0: batch})
    inputs = draw(50, kind=kind, dtype=torch.float32)
    return torch.export.export(Rule(), tuple(inputs), dynamic_shapes=shapes)


@pytest.mark.parametrize("kind", ["head", "none"])
def test_exports_with_free_batch_and_length(kind: str) -> None:
    program = export(kind).module()
    for batch, length in ((1, 1), (3, 32), (2, 100)):
        inputs = draw(length, batch, kind=kind, dtype=torch.float32)
        torch.testing.assert_close(program(*inputs), reference(*inputs), rtol=1e-5, atol=1e-5)


def test_macs_are_two_products_a_token() -> None:
    assert rule.macs(2, 10, 3, 8, 6) == 2 * 10 * 3 * 2 * 8 * 6
