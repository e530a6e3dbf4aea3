"""Times, comparisons, layers, memory, streams and the machine: what is reported is what happened."""

from __future__ import annotations

import importlib
import json
import time
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import formery
from formery import host
from formery.errors import BadSpec, CannotRun
from formery.measure import (
    Work,
    compare,
    context_sweep,
    count_macs,
    count_parameters,
    latency,
    machine,
    peak_memory,
    per_layer,
    state_bytes,
    throughput,
)
from formery.measure.running import evaluating, using_threads
from formery.measure.timing import SHORTEST, Stopwatch, quartiles


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """The module, with products small enough for a test, and a cache folder of its own."""
    module = importlib.import_module("formery.measure.machine")
    monkeypatch.setenv("FORMERY_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "SIZE", 128)
    monkeypatch.setattr(module, "STREAMED", 1 << 20)
    monkeypatch.setattr(module, "SECONDS", 0.01)
    module._known.cache_clear()
    yield module
    module._known.cache_clear()


def test_quartiles_are_the_inclusive_ones() -> None:
    assert quartiles([3.0, 1.0, 2.0, 5.0, 4.0]) == (2.0, 3.0, 4.0)
    assert quartiles([1.0]) == (1.0, 1.0, 1.0)


def test_latency_is_that_of_the_call() -> None:
    timing = latency(lambda: time.sleep(0.01), seconds=0.2)
    assert 0.01 <= timing.best <= timing.lower <= timing.median <= timing.upper
    assert timing.runs >= 5
    assert timing.calls == 1
    assert timing.spread == (timing.upper - timing.lower) / timing.median
    assert timing.per_second(4) == 4 / timing.median
    assert json.loads(json.dumps(timing.as_dict()))["spread"] == timing.spread


class Clock:
    """Time that passes when a test says so: a busy machine is nothing to be tested."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-7
        return self.now

    def work(self, seconds: float) -> None:
        """What takes so long."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    drawn = Clock()
    for module in ("timing", "comparison"):
        monkeypatch.setattr(f"formery.measure.{module}.perf_counter", drawn)
    return drawn


def test_short_calls_are_made_several_times_a_sample(clock: Clock) -> None:
    watch = Stopwatch(lambda: clock.work(1e-5))
    assert SHORTEST <= watch.calls * 1e-5 < 2.1 * SHORTEST
    assert watch.sample() == pytest.approx(1e-5, rel=1e-2)
    assert Stopwatch(lambda: clock.work(2 * SHORTEST)).calls == 1


def test_the_cpu_clock_does_not_run_while_a_call_sleeps() -> None:
    timing = latency(lambda: (time.sleep(0.003), sum(range(100_000))), seconds=0.1, clock="cpu")
    assert timing.median < latency(lambda: (time.sleep(0.003), sum(range(100_000))), seconds=0.1).median - 0.002
    with pytest.raises(BadSpec, match="clock"):
        latency(time.time, clock="moon")  # type: ignore[arg-type]


def test_threads_and_modes_are_put_back() -> None:
    before = torch.get_num_threads()
    seen = []
    latency(lambda: seen.append(torch.get_num_threads()), threads=before + 1, seconds=0.0)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    with pytest.raises(BadSpec, match="threads"), using_threads(0):
        pass
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with evaluating(model, None, print):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False]


def test_ratios_are_those_of_rounds(small_machine, clock: Clock) -> None:  # type: ignore[no-untyped-def]
    slow, quick = (lambda: clock.work(0.012)), (lambda: clock.work(0.004))
    result = compare({"slow": slow, "quick": quick}, seconds=0.3)
    assert result.base == "slow"
    assert result["slow"].ratio == result["slow"].ratio_lower == 1
    row = result["quick"]
    assert [row.ratio_lower, row.ratio, row.ratio_upper] == pytest.approx([3.0] * 3, rel=1e-3)
    assert result["quick"].of_products is None
    swapped = result.against("quick")
    assert swapped["slow"].ratio < 0.5
    assert swapped["slow"].timing == result["slow"].timing
    assert swapped.rounds == len(result.samples["slow"])
    assert compare({"slow": slow, "quick": quick}, base="quick", seconds=0.1)["quick"].ratio == 1
    with pytest.raises(BadSpec, match="base"):
        result.against("neither")
    assert json.loads(json.dumps(result.as_dict()))["rows"][1]["name"] == "quick"


def test_rounds_go_through_all_in_an_order_drawn_by_the_seed() -> None:
    def order(seed: int) -> list[str]:
        calls: list[str] = []

        def call(name: str) -> None:
            calls.append(name)
            time.sleep(SHORTEST * 1.2)

        works = {name: (lambda name=name: call(name)) for name in "abc"}
        compare(works, seed=seed, seconds=0, least=12, warmup=1, shares=False)  # type: ignore[arg-type]
        return calls[3:]

    first = order(1)
    assert all(sorted(first[i : i + 3]) == ["a", "b", "c"] for i in range(0, 36, 3))
    assert first == order(1) != order(2)
    assert len({tuple(first[i : i + 3]) for i in range(0, 36, 3)}) > 2


def test_shares_are_of_the_machines_rates(small_machine) -> None:  # type: ignore[no-untyped-def]
    layer = nn.Linear(256, 128, bias=False)
    work = Work.of(layer, 64, 256)
    assert (work.macs, work.bytes, work.dtype) == (64 * 256 * 128, 4 * 256 * 128, torch.float32)
    row = compare({"layer": work}, seconds=0.05).rows[0]
    known = machine()
    assert row.of_products == pytest.approx(work.macs / row.timing.median / known.fp32)
    assert row.of_bandwidth == pytest.approx(work.bytes / row.timing.median / known.bandwidth)
    assert Work.of(layer.bfloat16(), 64, 256).dtype is torch.bfloat16
    assert known.rate(torch.bfloat16) == known.bf16


def test_nothing_to_compare_is_a_mistake() -> None:
    with pytest.raises(BadSpec, match="nothing"):
        compare({})
    with pytest.raises(BadSpec, match="base"):
        compare({"a": time.time}, base="b")


def test_the_machine_is_measured_once_and_remembered(small_machine, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    first = machine()
    assert min(first.fp32, first.bf16, first.bandwidth) > 0
    kept = host._file("machine")
    assert len(json.loads(kept.read_text())) == 1
    small_machine._known.cache_clear()
    monkeypatch.setattr(small_machine, "_measured", lambda threads: pytest.fail("measured again"))
    assert machine() == first
    kept.write_text("not json")
    small_machine._known.cache_clear()
    monkeypatch.setattr(small_machine, "_measured", lambda threads: first)
    assert machine() == first
    assert len(json.loads(kept.read_text())) == 1


def test_layers_add_up_to_the_model() -> None:
    model = formery.create_model("poolformer_s12", img_size=32).eval()
    result = per_layer(model, 1, 3, 32, 32, seconds=0.0)
    assert sum(layer.macs for layer in result.layers) == count_macs(model, 1, 3, 32, 32).total
    assert sum(layer.parameters for layer in result.layers) == count_parameters(model).total
    assert sum(layer.share for layer in result.layers) == pytest.approx(1, abs=1e-6)
    by_path = {layer.path: layer for layer in result.layers}
    assert by_path["stem"].output == [1, 8, 8, 64]
    assert by_path["body.stages.0.blocks.0.mixer"].kind == "pooling"
    assert by_path["head"].output == [1, 1000]
    assert all(layer.seconds > 0 for layer in result.layers)
    assert json.loads(json.dumps(result.as_dict()))["layers"][0]["path"] == "stem"


def test_layers_of_any_torch_model_are_its_innermost_modules() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Identity(), nn.Sequential(nn.ReLU(), nn.Dropout()), shared)
    result = per_layer(model, 2, 4, seconds=0.0)
    assert [layer.path for layer in result.layers] == ["0", "2.0", "(rest)"]
    assert [layer.parameters for layer in result.layers] == [20, 0, 0]
    assert [layer.macs for layer in result.layers] == [2 * 2 * 16, 0, 0]


def test_peak_memory_is_what_the_allocator_saw(capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 32))
    memory = peak_memory(model, 1000, 64)
    hidden = 4 * 1000 * 256
    assert memory.weights == 4 * (64 * 256 + 256 + 256 * 32 + 32)
    assert memory.kept == 4 * 1000 * 32
    assert memory.activations == 2 * hidden  # before and after tanh, together
    assert memory.peak == memory.weights + memory.activations
    assert "profiler" not in capfd.readouterr().err
    forwards: list[str] = []
    model.register_forward_hook(lambda *_: forwards.append("made"))
    assert peak_memory(model, 1000, 64, warmup=False) == memory
    assert len(forwards) == 1
    with pytest.raises(CannotRun, match="meta"):
        peak_memory(nn.Linear(2, 2, device="meta"), 1, 2)


def test_a_streams_bytes_are_counted_without_taking_them() -> None:
    model = formery.create_model("olmo_hybrid_tiny")
    assert state_bytes(model, 100, batch=2) == model.new_state(2, 100).nbytes()
    assert state_bytes(model.bfloat16(), 100) < state_bytes("olmo_hybrid_tiny", 100)
    growth = [state_bytes("olmo_hybrid_7b", n) for n in (1000, 2000, 3000)]
    assert growth[2] - growth[1] == growth[1] - growth[0] == 1000 * 8 * 2 * 3840 * 4  # 8 attention layers
    with pytest.raises(CannotRun, match="stream"):
        state_bytes("vit_tiny", 10)


def test_a_context_sweep_says_what_length_costs() -> None:
    model = formery.create_model("decoder_tiny")
    model.train()
    result = context_sweep(model, [8, 32], batch=2, seconds=0.0)
    assert model.training
    near, far = result.points
    attention = sum(mixer.macs(1, 32) - mixer.macs(1, 8) for _, mixer in model.mixers())
    assert far.decode_macs - near.decode_macs == 2 * attention > 0
    assert far.state_bytes == state_bytes(model, 32, 2) > near.state_bytes
    assert min(near.prefill.median, near.decode.median) > 0
    assert json.loads(json.dumps(result.as_dict()))["batch"] == 2
    with pytest.raises(BadSpec, match="at least 1"):
        context_sweep(model, [0])


def test_throughput_is_items_by_time() -> None:
    model = formery.create_model("poolformer_s12", img_size=32)
    results = throughput(model, batches=(1, 3), seconds=0.0)
    assert [result.batch for result in results] == [1, 3]
    assert results[1].per_second == 3 / results[1].timing.median


def test_every_result_is_a_table(small_machine) -> None:  # type: ignore[no-untyped-def]
    model = formery.create_model("decoder_tiny")
    results = [
        latency(time.time, seconds=0.0),
        compare({"a": time.time}, seconds=0.0),
        machine(),
        per_layer(model, 1, 4, seconds=0.0),
        peak_memory(model, 1, 4),
        context_sweep(model, [4], seconds=0.0),
        throughput(model, 4, batches=(1,), seconds=0.0)[0],
    ]
    for result in results:
        out = StringIO()
        Console(file=out, width=160).print(result)
        assert "─" in out.getvalue()
        assert json.dumps(result.as_dict())
