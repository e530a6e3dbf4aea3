"""Dense products: each backend is the definition; the choice is measured, remembered, imposed, and steps aside."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from formery import host
from formery.errors import BadSpec
from formery.ops.linear import PackedWeight, choice, chosen, impose, linear, reference, using
from formery.parts.dense import Dense

pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"),
]

ROWS, IN, OUT = 48, 192, 160
assert ROWS * IN * OUT >= choice.SMALL


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that knows nothing yet, and its folder."""
    monkeypatch.setenv("FORMERY_CACHE", str(tmp_path))
    monkeypatch.setattr(choice, "MEMORY", choice.Memory())
    monkeypatch.setattr(choice, "ROUNDS", 1)
    return tmp_path / "linear.json"


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of oneDNN's products as they are run."""
    ran: list[str] = []
    import formery.ops.linear as room

    real = room.onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
        ran.append("packed" if weight.is_mkldnn else "onednn")
        return real(x, weight, bias, activation)

    monkeypatch.setattr(room, "onednn", counted)
    return ran


def draw(*lead: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(*(lead or (ROWS,)), IN, dtype=dtype),
        torch.randn(OUT, IN, dtype=dtype) / IN**0.5,
        torch.randn(OUT, dtype=dtype),
    )


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("backend", ["torch", "onednn"])
def test_values_and_gradients_are_the_definitions(backend, with_bias, activation) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias = draw(3, ROWS)
    inputs = [x, weight, *([bias] if with_bias else [])]
    exact = [t.double().requires_grad_() for t in inputs]
    expected = reference(*exact, **({} if with_bias else {"bias": None}), activation=activation)
    leaves = [t.requires_grad_() for t in inputs]
    with using(backend):
        with torch.no_grad():
            y = linear(x, weight, bias if with_bias else None, activation)
            packed = linear(x, weight, bias if with_bias else None, activation, PackedWeight())
        trained = linear(x, weight, bias if with_bias else None, activation)
        towards = torch.randn_like(trained)
        got = torch.autograd.grad(trained, leaves, towards)
    for value in (y, packed, trained):
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(got, torch.autograd.grad(expected, exact, towards.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_bfloat16() -> None:
    x, weight, bias = draw(dtype=torch.bfloat16)
    with using("onednn"), torch.no_grad():
        for packed in (None, PackedWeight()):
            y = linear(x, weight, bias, packed=packed)
            assert y.dtype == torch.bfloat16
            expected = reference(x.double(), weight.double(), bias.double())
            torch.testing.assert_close(y.double(), expected, rtol=1e-2, atol=2e-2)


def views(x: Tensor) -> dict[str, Tensor]:
    wide = torch.randn(*x.shape[:-1], 3 * IN)
    wide[..., IN : 2 * IN] = x
    return {
        "contiguous": x,
        "slice of columns": wide[..., IN : 2 * IN],
        "every other column": torch.stack([x, x + 1], -1)[..., 0],
        "transposed": x.mT.contiguous().mT,
        "permuted": x.unflatten(0, (4, -1)).transpose(0, 1).contiguous().transpose(0, 1),
        "repeated row": x[:1].expand(ROWS, IN),
        "overlapping rows": torch.randn(ROWS * 2 + IN).as_strided((ROWS, IN), (2, 1)),
        "vector": torch.randn(IN),
        "batches": x.expand(5, *x.shape),
    }


@pytest.mark.parametrize("name", views(draw()[0]))
def test_any_strides(name: str, products: list[str]) -> None:
    x, weight, bias = draw()
    view = views(x)[name]
    with using("onednn"):
        for matrix in (weight, weight.mT.contiguous().mT, weight.repeat(1, 2)[:, :IN]):
            torch.testing.assert_close(linear(view, matrix, bias), F.linear(view, matrix, bias), rtol=1e-5, atol=1e-5)
    assert bool(products) == (name != "vector")


def test_gradients_from_expanded_and_transposed_gradients() -> None:
    x, weight, _ = draw()
    weight.requires_grad_()
    with using("onednn"):
        for loss in (lambda y: y.sum(), lambda y: y.mT.contiguous().square().sum(), lambda y: y.sum(0)[0]):
            (got,) = torch.autograd.grad(loss(linear(x, weight)), weight)
            (expected,) = torch.autograd.grad(loss(F.linear(x, weight)), weight)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_second_gradients_are_right() -> None:
    x, weight, bias = (t.requires_grad_() for t in draw())

    def penalty(product) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        y = product(x, weight, bias).square().sum()
        first = torch.autograd.grad(y, (x, weight), create_graph=True)
        return torch.autograd.grad(sum(g.square().mean() for g in first), (x, weight, bias))

    with using("onednn"):
        got = penalty(linear)
    for a, b in zip(got, penalty(F.linear), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_frozen_weights_get_no_gradient() -> None:
    x, weight, bias = draw()
    x.requires_grad_()
    with using("onednn"):
        linear(x, weight, bias).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_whoever_watches_sees_the_ordinary_operation(products: list[str]) -> None:
    x, weight, bias = draw()
    with using("onednn"):
        with FlopCounterMode(display=False) as counter:
            linear(x, weight, bias)
        assert counter.get_total_flops() == 2 * ROWS * IN * OUT
        got = torch.func.vmap(linear, (0, None, None))(x.expand(2, ROWS, IN), weight, bias)
        torch.testing.assert_close(got[1], F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
        _, tangent = torch.func.jvp(lambda t: linear(t, weight, bias), (x,), (x,))
        torch.testing.assert_close(tangent, F.linear(x, weight), rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight, bias).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            linear(x, weight, bias)
        assert linear(x.to("meta"), weight.to("meta"), bias.to("meta")).is_meta
        assert linear(x.double(), weight.double(), bias.double()).dtype == torch.float64
        program = torch.export.export(Dense(IN, OUT), (x,))
        assert any(node.target is torch.ops.aten.linear.default for node in program.graph.nodes)
        torch.compile(linear, backend="eager", fullgraph=True)(x, weight, bias)
        torch.jit.trace(linear, (x, weight, bias), check_trace=False)(x, weight, bias)
        torch.fx.symbolic_trace(nn.Sequential(Dense(IN, OUT)))(x)
        tiny = torch.randn(4, IN)
        assert linear(tiny[:0], weight, bias).shape == (0, OUT)
        linear(tiny, weight, bias)
    assert not products
    with using("onednn"):
        linear(x, weight, bias)
    assert products == ["onednn"]


def test_wrong_shapes_fail_as_they_do_in_torch() -> None:
    x, weight, bias = draw()
    with using("onednn"), pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        linear(x[:, 1:], weight, bias)


def test_the_off_switches(products: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = draw()
    with using("onednn"):
        with using("torch"):
            assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
        assert not products
        linear(x, weight, bias)
    assert products == ["onednn"]
    monkeypatch.setenv("FORMERY_LINEAR", "onednn")
    linear(x, weight, bias)
    assert products == ["onednn"] * 2
    monkeypatch.setenv("FORMERY_LINEAR", "torch")
    linear(x, weight, bias)
    assert len(products) == 2
    monkeypatch.setenv("FORMERY_LINEAR", "fast")
    with pytest.raises(BadSpec, match="FORMERY_LINEAR is 'fast'; it is one of auto, torch, onednn"):
        linear(x, weight, bias)
    with pytest.raises(BadSpec, match="the linear backend is 'mkl'"), using("mkl"):  # type: ignore[arg-type]
        pass


def test_the_choice_is_measured_once_and_remembered(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    first = chosen()
    assert torch.equal(torch.get_rng_state(), before)
    assert first["mode"] == "auto"
    data = json.loads(memory.read_text())
    (key,) = data
    assert f"torch {torch.__version__}, {torch.get_num_threads()} threads" in key

    def never() -> choice.Table:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(choice, "measure", never)
        assert chosen() == first
        patch.setattr(choice, "MEMORY", choice.Memory())  # another process
        assert chosen() == first


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '{"KEY": 1}', '{"KEY": {"float32": {}}}', "binary", "value"])
def test_a_broken_file_is_measured_again(memory: Path, broken: str) -> None:
    key = host.identity(torch.get_num_threads())
    whole = {key: choice._to_json(choice._everywhere(choice.Choice(False, False, False)))}
    if broken == "value":
        whole[key]["float32"]["many large"]["onednn"] = "yes"
        memory.write_text(json.dumps(whole))
    elif broken == "binary":
        memory.write_bytes(b"\xff\xfe\x00")
    else:
        memory.write_text(broken.replace("KEY", key))
    table = {name: value for name, value in chosen().items() if name != "mode"}
    assert json.loads(memory.read_text())[key] == table


def test_other_machines_entries_stay(memory: Path) -> None:
    memory.write_text('{"another machine": {"kept": true}}')
    chosen()
    assert json.loads(memory.read_text())["another machine"] == {"kept": True}


def test_a_folder_that_cannot_be_written_costs_only_the_next_measurement(memory: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    memory.write_text("in the way")
    monkeypatch.setenv("FORMERY_CACHE", str(memory / "below a file"))
    assert chosen() == chosen()


@pytest.mark.parametrize("onednn", [True, False])
def test_what_was_chosen_can_be_imposed(memory: Path, products: list[str], onednn: bool) -> None:
    x, weight, bias = draw()
    data = json.loads(json.dumps(chosen()))
    for table in (data["float32"], data["bfloat16"]):
        for entry in table.values():
            entry["onednn"] = onednn
    impose(data)
    linear(x, weight, bias)
    assert products == ["onednn"] * onednn
    assert chosen() == data
    with using("onednn"):
        forced = chosen()
    impose(forced)
    linear(x, weight, bias)
    assert products == ["onednn"] * (onednn + 1)
    impose(None)
    assert choice.MEMORY.imposed is None


@pytest.mark.parametrize("data", [{}, {"mode": "auto"}, {"mode": "auto", "float32": {"many large": 1}}])
def test_imposing_anything_else_is_refused(memory: Path, data: dict[str, object]) -> None:
    with pytest.raises(BadSpec):
        impose(data)


def test_packed_weights_follow_their_weight(products: list[str]) -> None:
    x, weight, bias = draw()
    packed = PackedWeight()
    layer = nn.Linear(IN, OUT)

    def right() -> None:
        with using("onednn"), torch.no_grad():
            got = linear(x, layer.weight, layer.bias, packed=packed)
        torch.testing.assert_close(got, F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)

    right()
    with torch.no_grad():
        layer.weight.mul_(2)
    right()
    layer.load_state_dict({"weight": weight, "bias": bias})
    right()
    layer.weight = nn.Parameter(weight * 3)
    right()
    layer.weight.data = weight * 4
    right()
    assert products == ["packed"] * 5
    held = packed.of(layer.weight)
    assert held is packed.of(layer.weight)
    for twin in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert twin._made is None
    packed.drop()
    assert packed._made is None


def test_packed_weights_are_for_inference_only(products: list[str]) -> None:
    x, weight, bias = draw()
    packed = PackedWeight()
    with using("onednn"):
        linear(x, nn.Parameter(weight), bias, packed=packed)
        with torch.inference_mode():
            fresh = weight.clone()
            linear(x, fresh, bias, packed=packed)
            fresh.mul_(2)  # no version counts this
            torch.testing.assert_close(
                linear(x, fresh, bias, packed=packed), F.linear(x, fresh, bias), rtol=1e-5, atol=1e-5
            )
            assert products == ["onednn"] * 3
            linear(x, weight, bias, packed=packed)
    assert products[-1] == "packed"


def test_dense_is_a_linear() -> None:
    torch.manual_seed(3)
    plain = nn.Linear(IN, OUT)
    torch.manual_seed(3)
    dense = Dense(IN, OUT)
    assert isinstance(dense, nn.Linear)
    assert list(dense.state_dict()) == ["weight", "bias"]
    x = draw()[0]
    torch.testing.assert_close(dense(x), plain(x), rtol=1e-5, atol=1e-5)
    assert Dense(IN, OUT, bias=False).bias is None


@pytest.mark.parametrize("fused", [True, False])
def test_an_activation_is_fused_where_that_was_measured_to_be_faster(
    memory: Path, products: list[str], fused: bool
) -> None:
    x, weight, bias = draw()
    impose(
        {"mode": "auto", **choice._to_json(choice._everywhere(choice.Choice(onednn=False, packed=False, fused=fused)))}
    )
    linear(x, weight, bias)
    assert products == []
    activated = linear(x, weight, bias, "gelu")
    assert products == ["onednn"] * fused
    torch.testing.assert_close(activated, F.gelu(F.linear(x, weight, bias)), rtol=1e-5, atol=1e-5)
    linear(x, weight.requires_grad_(), bias, "gelu")
    assert products == ["onednn"] * fused
    impose(None)


@pytest.mark.parametrize(("rows", "biased"), [(1500, True), (4096, True), (4500, False)])
def test_gradients_over_many_rows(rows: int, biased: bool) -> None:
    """To the second order, and for those tensors alone that want one."""
    draw = torch.Generator().manual_seed(0)
    x, g = torch.randn(rows, 24, generator=draw), torch.randn(rows, 48, generator=draw)
    weight, bias = torch.randn(48, 24, generator=draw), torch.randn(48, generator=draw) if biased else None
    given = [t.requires_grad_() for t in (x, weight, bias) if t is not None]
    both = []
    for product in (linear, reference):
        with using("onednn"):
            first = torch.autograd.grad(product(x, weight, bias), given, g, create_graph=True)
            second = torch.autograd.grad(sum((t.square().sum() for t in first), start=x.sum() * 0), (x, weight))
        both.append([t.detach() for t in (*first, *second)])
    for ours, expected in zip(*both, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    x.requires_grad_(False)
    with using("onednn"):
        (alone,) = torch.autograd.grad(linear(x, weight), weight, g)
    torch.testing.assert_close(alone, both[1][1], rtol=1e-4, atol=1e-3)
