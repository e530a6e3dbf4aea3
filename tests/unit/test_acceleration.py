"""`accelerate` on models of timm and transformers: same values and gradients, nothing else changed, and off again."""

from __future__ import annotations

import copy
import importlib
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from formery.acceleration import FastForward, accelerate
from formery.ops.linear import int8, using
from formery.parts.dense import Dense

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


def vit() -> tuple[nn.Module, Tensor]:
    timm = importlib.import_module("timm")
    return timm.create_model("vit_small_patch16_224", depth=2, img_size=96, num_classes=10), torch.randn(2, 3, 96, 96)


def llama() -> tuple[nn.Module, Tensor]:
    transformers = importlib.import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=192, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config), torch.randint(200, (2, 48))


def output(model: nn.Module, inputs: Tensor) -> Tensor:
    result = model(inputs)
    return result if isinstance(result, Tensor) else result.logits


def close(got: Tensor, expected: Tensor) -> None:
    """Equal to what float32 products in another order may differ by."""
    assert (got - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.fixture(params=[vit, llama], ids=["timm vit", "transformers llama"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    return request.param()


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of oneDNN's products as they are run."""
    import formery.ops.linear as room

    ran: list[str] = []
    real: Callable[..., Tensor] = room.onednn

    def counted(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        ran.append("packed" if weight.is_mkldnn else "onednn")
        return real(x, weight, *rest)

    monkeypatch.setattr(room, "onednn", counted)
    return ran


@pytest.mark.parametrize("pack", [False, True])
def test_values_and_gradients_are_equal_to_rounding(case, pack: bool, products: list[str]) -> None:  # type: ignore[no-untyped-def]
    model, inputs = case
    fast = accelerate(copy.deepcopy(model), pack=pack)
    with using("onednn"):
        with torch.inference_mode():
            expected = output(model.eval(), inputs)
            assert not products
            close(output(fast.eval(), inputs), expected)
        assert set(products) == {"packed" if pack else "onednn"}
        losses = [output(m.train(), inputs).logsumexp(-1).mean() for m in (model, fast)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
        for loss in losses:
            loss.backward()
    for (name, p), (other, q) in zip(model.named_parameters(), fast.named_parameters(), strict=True):
        assert name == other
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            assert (p.grad - q.grad).abs().max() <= 1e-4 * p.grad.abs().max() + 1e-8


def test_nothing_else_changes_and_off_restores(case) -> None:  # type: ignore[no-untyped-def]
    model, inputs = case
    model.eval()
    before = {name: dict(vars(m)) for name, m in model.named_modules()}
    types = [type(m) for m in model.modules()]
    state, text = {k: v.clone() for k, v in model.state_dict().items()}, repr(model)
    with torch.no_grad():
        expected = output(model.eval(), inputs)
    assert accelerate(accelerate(model), pack=True) is model
    assert [type(m) for m in model.modules()] == types
    assert repr(model) == text
    assert list(model.state_dict()) == list(state)
    assert all(isinstance(m.forward, FastForward) for m in model.modules() if type(m) is nn.Linear)
    assert accelerate(accelerate(model, False), False) is model
    assert {name: vars(m) for name, m in model.named_modules()} == before
    with torch.no_grad():
        assert torch.equal(output(model.eval(), inputs), expected)


def test_copies_pickles_and_hooks_follow(products: list[str]) -> None:
    model = accelerate(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256, bias=False)), pack=True).eval()
    x = torch.randn(64, 256)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    twins = [copy.deepcopy(model), torch.load(stored, weights_only=False)]
    seen: list[torch.Size] = []
    model[0].register_forward_hook(lambda module, args, y: seen.append(y.shape))
    with torch.no_grad(), using("onednn"):
        expected = model(x)
        assert seen == [x.shape]
        for twin in twins:
            assert torch.equal(twin(x), expected)
            assert twin[0].forward.module is twin[0]
            twin[0].weight.zero_()  # of the twin alone, and noticed
            assert not torch.equal(twin(x), expected)
        assert torch.equal(model(x), expected)
    assert set(products) == {"packed"}


def test_training_gives_the_packed_memory_back(products: list[str]) -> None:
    layer = accelerate(nn.Sequential(nn.Linear(256, 256)), pack=True)[0]
    x = torch.randn(64, 256)
    with using("onednn"):
        with torch.no_grad():
            layer.eval()(x)
            assert layer.forward.packed._made is not None
            layer.train()(x)
        assert layer.forward.packed._made is None
        layer.eval()(x).sum().backward()  # a gradient is asked for
    assert products[:3] == ["packed", "onednn", "onednn"]
    assert layer.forward.packed._made is None


def test_what_computes_something_else_is_left_alone() -> None:
    class Cosine(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.cosine_similarity(input[..., None, :], self.weight, dim=-1)

    class Named(nn.Linear):
        pass

    model = nn.ModuleList([Cosine(8, 8), Named(8, 8), Dense(8, 8), nn.Linear(8, 8), nn.MultiheadAttention(8, 2)])
    model[3].forward = lambda input: input  # type: ignore[method-assign]
    accelerate(model)
    assert [isinstance(m.forward, FastForward) for m in list(model)[:4]] == [False, True, False, False]
    accelerate(model, pack=True)
    assert [isinstance(m.forward, FastForward) for m in list(model)[:4]] == [False, True, True, False]
    accelerate(model, False)
    assert not any(isinstance(m.forward, FastForward) for m in model.modules())
    x = torch.randn(3, 8)
    assert model[3](x) is x


def test_counters_compilers_and_exporters_see_the_ordinary_model() -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval()
    fast, x = accelerate(copy.deepcopy(model), pack=True), torch.randn(64, 256)
    with using("onednn"), torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            fast(x)
        assert counter.get_total_flops() == 2 * 2 * 64 * 256 * 256
        expected = model(x)
        assert torch.equal(torch.compile(fast, backend="eager", fullgraph=True)(x), expected)
        program = torch.export.export(fast, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
        assert [str(n.target) for n in program.graph.nodes if "linear" in str(n.target)] == ["aten.linear.default"] * 2
        assert set(program.state_dict) == set(model.state_dict())
        assert torch.equal(program.module()(x), expected)


def test_int8_weights_serve_few_rows_and_follow_changes() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(1024, 512).eval()
    exact, fast = copy.deepcopy(layer), accelerate(layer, int8=True)
    token, prompt = torch.randn(1, 1, 1024), torch.randn(1, 64, 1024)
    with torch.no_grad():
        for _ in range(2):
            expected = exact(token)
            error = (fast(token) - expected).abs().max() / expected.abs().max()
            assert 1e-5 < error < 1e-2
            torch.testing.assert_close(fast(prompt), exact(prompt), rtol=1e-5, atol=1e-5)
            for one in (exact, fast):
                one.weight.mul_(-2)
    x = token.clone().requires_grad_()
    torch.testing.assert_close(fast(x), exact(x), rtol=1e-5, atol=1e-5)  # gradients see the float weights
    assert accelerate(fast, False)(token).equal(fast(token))
    assert set(fast.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize("sizes", [(1, 16), (7, 32), (50, 160)])
@pytest.mark.parametrize("rows", [1, 3, 15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_int8_product_is_its_definition(sizes: tuple[int, int], rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, x, bias = torch.randn(sizes), torch.randn(rows, sizes[1], dtype=dtype), torch.randn(sizes[0], dtype=dtype)
    weight[0] = 0
    numbers = int8.rounded(weight)
    assert int8.applies(rows, weight)
    assert (numbers.widened() - weight).abs().max() <= weight.abs().max() / 254 * 1.0001
    got, expected = int8.product(x, numbers, bias, "silu"), int8.reference(x, numbers, bias, "silu")
    assert got.dtype == dtype
    assert (got - expected).abs().max() <= 2e-2 * expected.abs().max()


def test_the_int8_product_is_kept_from_what_torch_reads_beyond() -> None:
    assert not int8.applies(1, torch.randn(8, 24))
    assert not int8.applies(int8.FEW, torch.randn(8, 32))
    assert not int8.applies(0, torch.randn(8, 32))
