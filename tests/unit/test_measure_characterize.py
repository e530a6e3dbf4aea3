"""Growth with the context: figures add up, exponents and crossings are right, memory is asked before it is taken."""

from __future__ import annotations

import math
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import formery
from formery.errors import BadSpec, CannotRun
from formery.measure import operators
from formery.measure.characterize import Curve, Point, characterize, crossing, exponent, lengths_between, plot
from formery.measure.operators import CLASSES, class_of, operator_split, shares
from formery.measure.streams import state_bytes
from formery.ops.profiled import SCAN, profiled

# The package gives the function of this name.
growth = import_module("formery.measure.characterize")


@pytest.fixture(scope="module")
def curve() -> Curve:
    return characterize(formery.create_model("olmo_hybrid_tiny"), [32, 64], seconds=0.01)


def test_a_curve_has_what_was_asked_for(curve: Curve) -> None:
    assert [point.tokens for point in curve.points] == [32, 64]
    assert curve.stopped is None
    for point in curve.points:
        assert min(point.prefill, point.decode, point.activation_bytes) > 0
        assert point.state_bytes == state_bytes("olmo_hybrid_tiny", point.tokens)
        assert point.operators is not None
        assert set(point.operators) == set(CLASSES)
        assert point.operators["scan"] > 0
        assert point.operators["products"] > 0
    assert curve.as_dict()["points"][0]["tokens"] == 32
    assert set(curve.exponents.values()) == {None}, "two lengths do not tell growth from noise"
    assert "prefill -, decode -" in str(curve.table().title)


def _read_lengths(monkeypatch: pytest.MonkeyPatch, brief: float, lengths: list[int]) -> list[int]:
    monkeypatch.setattr(growth, "BRIEF", brief)
    model, read = formery.create_model("decoder_tiny"), []
    model.register_forward_pre_hook(lambda module, args: read.append(args[0].shape[1]))
    characterize(model, lengths, seconds=1e-9)
    return [length for length in read if length > 1]


def test_a_long_prompt_is_read_no_oftener_than_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each of time, operators and memory, where one reading takes longer than the time given."""
    assert _read_lengths(monkeypatch, 0.0, [96, 128]) == [64, *[96] * 3, *[128] * 3]


def test_a_short_forward_is_profiled_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _read_lengths(monkeypatch, math.inf, [96]) == [64, *[96] * 5]


def test_the_first_reading_is_short_and_never_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow first forward of a model is in no figure, even where the first length is timed by one forward."""
    model, read = formery.create_model("decoder_tiny"), []

    def cold(module: Any, args: Any) -> None:
        read.append(args[0].shape[1])
        if len(read) == 1:
            sleep(0.5)

    model.register_forward_pre_hook(cold)
    assert characterize(model, [8], seconds=1e-9).points[0].prefill < 0.5
    assert read[0] == 8, "no longer than the first length"


def test_what_is_measured_is_handed_on_after_each_length() -> None:
    kept: list[Curve] = []
    said: list[str] = []
    model = formery.create_model("decoder_tiny")
    found = characterize(model, [1, 2, 3], name="small", seconds=0.01, keep=kept.append, say=said.append)
    assert [len(curve.points) for curve in kept] == [1, 2, 3]
    assert kept[0].stopped == "nothing beyond 1 token was measured"
    assert kept[-1] == found
    assert said == ["small: 1 token", "small: 2 tokens", "small: 3 tokens"]
    assert None not in found.exponents.values()


def test_it_stops_before_memory_runs_out() -> None:
    model = formery.create_model("decoder_tiny")
    found = characterize(model, [16, 1 << 20], seconds=0.01, room=50 << 20)
    assert [point.tokens for point in found.points] == [16]
    assert found.stopped is not None
    assert "1,048,576" in found.stopped


def test_what_cannot_be_characterized() -> None:
    with pytest.raises(CannotRun, match="does not stream"):
        characterize(formery.create_model("vit_tiny", img_size=32), [4])
    with pytest.raises(BadSpec, match="at least 1"):
        characterize(formery.create_model("decoder_tiny"), [0])
    with pytest.raises(BadSpec, match="512:65536"):
        lengths_between(8, 4)


def test_lengths_double_up_to_the_last() -> None:
    assert lengths_between(512, 3000) == [512, 1024, 2048, 3000]
    assert lengths_between(7, 7) == [7]


def test_exponents_are_slopes_of_logarithms() -> None:
    pairs = [(2.0**n, 3 * (2.0**n) ** 1.5) for n in range(6)]
    assert exponent(pairs) == pytest.approx(1.5)
    assert exponent([(1.0, 1.0), (2.0, 99.0), (4.0, 4.0), (8.0, 8.0)]) == pytest.approx(1.0), "the upper half alone"
    assert exponent([(4.0, 1.0)]) is None
    assert exponent([(4.0, 0.0), (8.0, 0.0)]) is None


def _curve(name: str, power: float, factor: float) -> Curve:
    return Curve(name, 1, 4, [Point(n, factor * n**power, 1.0, 1, 1, None) for n in (64, 256, 1024)])


def test_crossings_lie_between_lengths() -> None:
    linear, square = _curve("linear", 1, 1.0), _curve("square", 2, 1 / 200)
    assert crossing(linear, square) == pytest.approx(200)
    assert crossing(square, linear) == pytest.approx(200)
    assert crossing(linear, _curve("slower", 1, 2.0)) is None


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.04, 0.5, 0.4], None), ([2.0, 1.5, 0.96], None), ([0.97, 1.03, 0.97], None),
        ([2.0, 1.01, 0.5], (256, 1024)), ([2.0, 0.99, 0.5], (64, 256)), ([2.0, 1.0, 0.5], (256, 256)),
        ([1.06, 0.94, 0.94], (64, 256)),
    ],
)  # fmt: skip
def test_a_crossing_stands_out_of_noise(ratios: list[float], expected: tuple[int, int] | None) -> None:
    """The two differ by more than 5 % on both sides of it, however close they are in between."""
    lengths = (64, 256, 1024)
    first = Curve("a", 1, 4, [Point(n, ratio, 1.0, 1, 1, None) for n, ratio in zip(lengths, ratios, strict=True)])
    found = crossing(first, _curve("flat", 0, 1.0))
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert expected[0] * (1 - 1e-9) <= found <= expected[1] * (1 + 1e-9)


def test_self_times_add_up_to_the_call() -> None:
    a = torch.randn(300, 300)

    @profiled(SCAN)
    def recurrence(x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = (x @ a).tanh()
        return x

    calls: list[str] = []

    def call() -> torch.Tensor:
        calls.append("made")
        return (a @ a).exp() + recurrence(a)

    split = operator_split(call)
    assert len(calls) == 2
    assert operator_split(call, warmup=False)["products"] > 0
    assert len(calls) == 3
    assert split["scan"] > split["elementwise"]
    assert split["products"] > 0
    assert split["norm"] == split["convolution"] == 0
    assert math.isfinite(sum(split.values()))


def test_one_disturbed_profile_of_three_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = iter(
        [{"products": 2.0, "other": 1.0}, {"products": 2.5, "other": 90.0}, {"products": 80.0, "other": 1.5}]
    )
    monkeypatch.setattr(operators, "_profiled", lambda call: dict.fromkeys(CLASSES, 0.0) | next(profiles))
    split = operator_split(lambda: None, repeats=3)
    assert (split["products"], split["other"], split["scan"]) == (2.5, 1.5, 0.0)


def test_work_on_the_processor_counts_beside_an_idle_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.profiler.profile
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.profiler, "profile", lambda activities: real(activities=activities[:1]))
    a = torch.randn(200, 200)
    assert operator_split(lambda: a @ a)["products"] > 0


def test_work_on_an_accelerator_is_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of its kernels, each once, in the class of the operator that launched it."""
    kinds = torch.autograd.DeviceType

    def event(name: str, parent: Any, on_device: float, kind: Any = kinds.CPU) -> SimpleNamespace:
        return SimpleNamespace(
            name=name, cpu_parent=parent, device_type=kind, self_device_time_total=on_device, self_cpu_time_total=7e6
        )

    scan = event(SCAN, None, 0)
    events = [
        event("aten::mm", None, 3e6), event("gemm_kernel", None, 3e6, kinds.CUDA), scan, event("aten::mm", scan, 2e6),
        event(SCAN, None, 5e6, kinds.CUDA), event("aten::empty", None, 0),
    ]  # fmt: skip

    class Profile(nullcontext[Any]):
        def __init__(self, **_: Any) -> None:
            super().__init__(self)

        def events(self) -> list[SimpleNamespace]:
            return events

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    found = operator_split(lambda: None)
    assert {kind: seconds for kind, seconds in found.items() if seconds} == {"products": 3.0, "scan": 2.0}


def test_shares_add_up_and_of_nothing_are_none() -> None:
    assert shares({"products": 3.0, "scan": 1.0}) == {"products": 0.75, "scan": 0.25}
    assert shares({"products": 0.0, "scan": 0.0}) == {"products": 0.0, "scan": 0.0}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "products"), ("mkldnn::_linear_pointwise", "products"),
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"), ("aten::native_layer_norm", "norm"),
        ("aten::mul", "elementwise"), ("aten::copy_", "other"),
    ],
)  # fmt: skip
def test_classes(name: str, kind: str) -> None:
    assert class_of(name) == kind


def test_a_plot_is_drawn(curve: Curve, tmp_path: Path) -> None:
    plot([curve, _curve("other", 1, 1.0)], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_a_plot_of_nothing_is_drawn(tmp_path: Path) -> None:
    plot([Curve("large", 1, 4, [], "no room")], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").is_file()


@pytest.mark.filterwarnings("error")
def test_legends_hide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **b: (drawn.append(figure), save(figure, *a, **b)))
    split = dict.fromkeys(CLASSES, 0.0) | {"products": 0.3, "scan": 0.1}
    points = [Point(n, 0.002 * n, 0.001, n << 20, 1, split) for n in (64, 128, 256)]
    names = [f"model {i}" for i in range(7)]
    plot([Curve(name, 1, 4, points) for name in names], tmp_path / "growth.png")
    FigureCanvasAgg(drawn[0]).draw()  # type: ignore[no-untyped-call]
    above, below = drawn[0].subfigs
    for axes in above.axes:
        legend = axes.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == names
        box = legend.get_window_extent()
        assert not box.overlaps(axes.get_window_extent())
        assert all(box.y0 > panel.get_tightbbox().y1 for panel in below.axes[:7])
        assert box.y1 <= axes.get_window_extent().y0
    assert [axes.get_ylabel() for axes in above.axes] == ["prefill (ms)", "next token (ms)", "state (MiB)"]
    assert list(above.axes[0].lines[0].get_ydata()) == pytest.approx([128.0, 256.0, 512.0])
    assert list(above.axes[2].lines[0].get_ydata()) == [64, 128, 256]
    (legend,) = below.legends
    assert [text.get_text() for text in legend.get_texts()] == ["products", "scan"], "those that occur"
    for axes in below.axes[:7]:
        assert axes.get_legend() is None
        assert axes.get_xlabel() == "context (tokens)"
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
