"""The elementwise recurrence: any chunk, and what others' plain implementation gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from formery.ops import gated_scan as rule
from formery.ops.gated_scan import gated_scan, reference
from tests.contract.recurrences import elementwise as draw
from tests.contract.recurrences import named
from tests.goldens import normal, recorded

pytestmark = pytest.mark.usefixtures("poisoned")

FORMS = named("gated_scan").forms


@pytest.mark.parametrize("chunk", [1, 2, 5, 33, 50])
def test_any_chunk_is_the_definition(chunk: int) -> None:
    for length in (1, 4, 33):
        inputs = draw(length)
        torch.testing.assert_close(rule.forward(*inputs, chunk=chunk), reference(*inputs)[0])


@pytest.mark.parametrize("form", ["reference", *FORMS])
def test_published_outputs(form: str) -> None:
    """What the flash-linear-attention project's plain implementation of HGRN's recurrence gives."""
    B, L, H, V, seed = 2, 37, 2, 6, 20
    x, factor = normal((B, L, H, V), seed + 2).flatten(2), F.logsigmoid(normal((B, L, H * V), seed + 7)).exp()
    h, state = {"reference": reference, **FORMS}[form](x, factor, normal((B, H * V), seed + 8))
    golden = recorded("linear_ops")
    for got, key in ((h, "hgrn"), (state, "hgrn_state")):
        assert list(got.shape) == golden[key]["shape"].tolist()
        torch.testing.assert_close(got.flatten(), torch.from_numpy(golden[key]["head"]), rtol=1e-5, atol=1e-6)


def test_wide_tokens_and_narrow_ones_agree() -> None:
    """The loop over tokens, chosen by their width, against the one over chunks."""
    inputs = draw(9, batch=1, width=rule.WIDE)
    torch.testing.assert_close(gated_scan(*inputs)[0], rule.forward(*inputs, chunk=3))


def test_macs_are_one_a_number() -> None:
    assert rule.macs(2, 10, 6) == 2 * 10 * 6
