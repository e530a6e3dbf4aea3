"""Training is exact under interruption, stops when told to, and says what went wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import formery
from formery.data import ArrayData, TextData, open_data
from formery.errors import BadFile, BadSpec, FormeryError, Unwritable
from formery.tasks import task_of
from formery.training import Diverged, TrainConfig, checkpoint, train
from formery.training.plan import seconds_per_step
from formery.training.processes import LOCK, is_first
from formery.training.run import Run

OPTIONS = {"steps": 12, "batch_size": 9, "eval_every": 3, "learning_rate": 1e-2, "accumulate": 2, "ema": 0.8}

SMOOTH = {"kind": "classify", "label_smoothing": 0.1}

CHILD = """
import sys, time
from tests.unit import test_training_loop as here
def stall(progress):
    if progress.step == 9:
        print("ready", flush=True)
        time.sleep(600)
here.train(here.fresh(), here.images(), folder=sys.argv[1], quiet=True, on_progress=stall, **here.OPTIONS)
"""


TWO = """
import sys, torch
from tests.unit import test_training_loop as here
if __name__ == "__main__":
    model = here.plain()
    result = here.train(model, here.images(), folder=sys.argv[1], quiet=True, devices=2, **here.SHARED)
    torch.save((model.state_dict(), here.told(result.curve)), f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")
"""

SHARED = {"steps": 6, "batch_size": 8, "eval_every": 3, "learning_rate": 1e-2}


def plain():
    """A model without randomness."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    return model


def images():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    return ArrayData(rng.random((60, 4, 4)).astype(np.float32) + labels[:, None, None] / 3, labels, ["a", "b", "c"])


def fresh(seed=0):
    """A hybrid with everything that draws numbers or keeps state: dropout, stochastic depth, batch norm."""
    torch.manual_seed(seed)
    spec = {
        "stem": {"kind": "conv", "dim": 8, "size": 3, "stride": 1, "padding": 1},
        "body": {
            "kind": "stack",
            "layout": "pooling attention gated_deltanet",
            "blocks": {
                "pooling": {"mixer": "pooling", "scheme": {"kind": "pre", "norm": "batch"}},
                "attention": {"mixer": {"kind": "attention", "heads": 2}},
                "gated_deltanet": {"mixer": {"kind": "gated_deltanet", "heads": 2, "head_dim": 4}},
            },
            "drop_path": 0.3,
        },
        "head": {"kind": "classes", "dropout": 0.2},
    }
    return formery.create_model(task_of("classify").fit_spec(spec, images()))


def same(one, two):
    ours, theirs = one.state_dict(), two.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def told(curve):
    """A curve without its times."""
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in curve]


class Kill(Exception):
    pass


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    model = fresh()
    return model, train(model, images(), folder=folder, quiet=True, **OPTIONS), folder


def last_tensors(folder):
    return checkpoint.newest(folder)[0].tensors


def check_equal(folder, model, result, unbroken):
    """Weights, averages of the optimizer, scores: bit for bit."""
    wanted_model, wanted, wanted_folder = unbroken
    assert same(model, wanted_model)
    assert told(result.curve) == told(wanted.curve)
    assert (result.status, result.steps, result.best_step) == (wanted.status, wanted.steps, wanted.best_step)
    ours, theirs = last_tensors(folder), last_tensors(wanted_folder)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = (folder / "journal.jsonl").read_text().splitlines()
    assert told(json.loads(line) for line in lines) == told(wanted.curve)


def test_training_learns_and_tells(unbroken):
    model, result, folder = unbroken
    assert (result.status, result.steps, result.metric) == ("finished", 12, "accuracy")
    assert [entry["step"] for entry in result.curve] == [3, 6, 9, 12]
    assert result.score == max(entry["score"] for entry in result.curve)
    assert result.metrics == next(e["metrics"] for e in result.curve if e["step"] == result.best_step)
    assert task_of("classify").evaluate(model, images())["accuracy"] == result.score
    assert not model.training
    assert not same(model, fresh())
    names = {p.name for p in (folder / "checkpoints").iterdir()}
    assert {"step-000000009.safetensors", "step-000000012.safetensors"} <= names
    assert f"best-{result.best_step:09d}.safetensors" in names
    json.dumps(result.plain(), allow_nan=False)


def test_the_same_training_gives_the_same(unbroken):
    model = fresh()
    torch.manual_seed(99)  # what the caller drew does not matter, and is not disturbed
    state = torch.get_rng_state()
    result = train(model, images(), quiet=True, **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(model, unbroken[0])
    assert told(result.curve) == told(unbroken[1].curve)
    assert result.folder is None


@pytest.mark.parametrize("step", [3, 9])
def test_an_exception_is_survived(tmp_path, unbroken, step):
    def kill(progress):
        if progress.step == step:
            raise Kill

    with pytest.raises(Kill):
        train(fresh(), images(), folder=tmp_path, quiet=True, on_progress=kill, **OPTIONS)
    model = fresh(seed=5)
    result = train(model, images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    check_equal(tmp_path, model, result, unbroken)


def test_a_kill_is_survived(tmp_path, unbroken):
    """SIGKILL after an entry of the journal was written and before its checkpoint."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.wait()
    assert checkpoint.newest(tmp_path)[0].state["step"] == 6
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 3
    model = fresh(seed=5)
    result = train(model, images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    check_equal(tmp_path, model, result, unbroken)


def test_pauses_and_a_damaged_checkpoint_are_survived(tmp_path, unbroken):
    model = fresh()
    result = train(model, images(), folder=tmp_path, quiet=True, until=4, **OPTIONS)
    assert (result.status, result.steps) == ("paused", 4)
    model = fresh(seed=5)
    result = train(model, images(), folder=tmp_path, quiet=True, resume=True, until=10, **OPTIONS)
    assert (result.status, result.steps, [e["step"] for e in result.curve]) == ("paused", 10, [3, 6, 9])
    newest = checkpoint.found(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    model = fresh(seed=5)
    result = train(model, images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    check_equal(tmp_path, model, result, unbroken)
    again = fresh(seed=5)
    finished = train(again, images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    check_equal(tmp_path, again, finished, unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_a_resumable_folder(tmp_path, unbroken, number):
    before = signal.getsignal(number)

    def interrupt(progress):
        if progress.step == 6:
            os.kill(os.getpid(), number)

    wanted = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(wanted) as caught:
        train(fresh(), images(), folder=tmp_path, quiet=True, on_progress=interrupt, **OPTIONS)
    if number == signal.SIGTERM:
        assert caught.value.code == 143
    assert signal.getsignal(number) == before
    assert checkpoint.newest(tmp_path)[0].state["step"] in (6, 7)
    model = fresh(seed=5)
    check_equal(tmp_path, model, train(model, images(), folder=tmp_path, resume=True, quiet=True, **OPTIONS), unbroken)


def test_it_runs_outside_the_main_thread(unbroken):
    model, found = fresh(), []
    thread = threading.Thread(target=lambda: found.append(train(model, images(), quiet=True, **OPTIONS)))
    thread.start()
    thread.join()
    assert found[0].status == "finished"
    assert same(model, unbroken[0])


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    """Two processes on the CPU: the batch is shared out, the gradient is its mean, the first process writes."""
    alone = plain()
    wanted = train(alone, images(), quiet=True, **SHARED)
    (tmp_path / "two.py").write_text(TWO)
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for weights, curve in found:
        assert all(torch.equal(weights[name], found[0][0][name]) for name in weights)
        assert all(torch.allclose(weights[name], t, atol=1e-5) for name, t in alone.state_dict().items())
        assert [entry["loss"] for entry in curve] == pytest.approx([entry["loss"] for entry in wanted.curve], rel=1e-5)
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2
    assert ran.stdout == ""


def test_other_processes_neither_speak_nor_hold_the_folder(monkeypatch):
    assert is_first("cpu")
    assert is_first(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first(2)
    assert is_first(1)  # a training of its own, whoever started it


def test_a_folder_has_one_training_at_a_time(tmp_path):
    """Two at once; afterwards, and after a kill, nothing is held."""
    folder = tmp_path / "new" / "run"

    def second(progress):
        with pytest.raises(
            Unwritable, match=rf"another process \({os.getpid()}\) is at work in .*run; wait for it, or"
        ):
            train(fresh(), images(), folder=folder, quiet=True, **OPTIONS)
        return False

    assert train(fresh(), images(), folder=folder, quiet=True, on_progress=second, **OPTIONS).status == "stopped"
    assert not (folder / LOCK).exists()
    (folder / LOCK).write_text("999999")  # what a killed one leaves
    assert train(fresh(), images(), folder=folder, quiet=True, resume=True, **OPTIONS).status == "finished"
    assert not (folder / LOCK).exists()


def test_nothing_is_left_of_a_folder_that_was_held_in_vain(tmp_path):
    with pytest.raises(BadSpec, match=r"gives \(1, 2\) for 1 images of 3 classes"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), images(), folder=tmp_path / "new" / "run", **SHARED)
    assert list(tmp_path.iterdir()) == []


class Frozen(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 3))
        self.requires_grad_(False)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), images(), r"gives \(1, 2\) for 1 images of 3 classes; build"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), images(), r"gives \(1, 5\) for 1 images of 3 classes; build"),
        (nn.Embedding(40, 256), TextData(bytes(range(32, 64)) * 60), "knows fewer than 256 kinds of tokens; build"),
        (Frozen(), images(), "nothing to train: all 2 tensors of parameters are frozen; set requires_grad"),
        (nn.Flatten(), images(), "nothing to train: there are no parameters"),
        (plain().half(), images(), r"weights are torch\.float16, too coarse to be trained; call model\.float\(\)"),
        (plain().bfloat16(), images(), r"weights are torch\.bfloat16"),
        (plain(), [1, 2, 3], "list is no open data; give what formery.data.open_data returns"),
        (plain(), "digitz", "did you mean digits"),
    ],
)
def test_models_and_data_that_do_not_train_are_refused(model, data, message):
    with pytest.raises(FormeryError, match=message):
        train(model, data, quiet=True, **SHARED)


def test_data_may_be_named():
    ten = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert train(ten, "digits", steps=1, batch_size=2, quiet=True).steps == 1
    spec = {"stem": {"kind": "patches", "dim": 8, "size": 4}, "body": {"kind": "stack", "layout": "pooling"}}
    model = formery.create_model(task_of("classify").fit_spec(spec | {"head": "classes"}, open_data("digits")))
    assert train(model, "digits", steps=1, batch_size=2, quiet=True).steps == 1


def test_double_precision_trains():
    assert train(plain().double(), images(), quiet=True, **SHARED).steps == 6


def test_pieces_and_workers_do_not_change_the_training():
    results = []
    for accumulate, workers in ((1, 0), (3, 0), (1, 1)):
        model = plain()
        config = TrainConfig.of(OPTIONS, accumulate=accumulate, ema=None, learning_rate=1e-3)
        train(model, images(), config=config, quiet=True, workers=workers)
        results.append(model[1].weight.detach())
    assert torch.allclose(results[0], results[1], rtol=1e-3, atol=1e-6)
    assert torch.equal(results[0], results[2])
    assert results[0].abs().max() > 1e-3


def test_steps_are_those_of_a_bare_loop():
    """Nothing but AdamW, clipping and the schedule happens to the weights."""
    data, task = images(), task_of("classify")
    config = TrainConfig.of(steps=5, batch_size=8, learning_rate=0.01, eval_every=5, grad_clip=0.1)
    ours, bare = (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)) for _ in range(2))
    bare.load_state_dict(ours.state_dict())
    result = train(ours, data, config=config, quiet=True)
    optimizer = torch.optim.AdamW(
        [
            {"params": [bare[1].weight], "weight_decay": config.weight_decay},
            {"params": [bare[1].bias], "weight_decay": 0.0},
        ],
        betas=config.betas,
        fused=True,
    )
    losses = []
    for step in range(5):
        optimizer.zero_grad()
        loss = task.loss(bare, data.train_batch(step, 8))
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(bare.parameters(), 0.1)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 if step == 0 else 0.005 * (1 + np.cos(np.pi * (step - 1) / 4))
        optimizer.step()
    assert torch.allclose(ours[1].weight, bare[1].weight, rtol=1e-6, atol=1e-8)
    assert result.curve[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_it_stops_early_and_keeps_the_best(tmp_path):
    options = {**OPTIONS, "ema": None, "steps": 400, "eval_every": 1, "patience": 4, "learning_rate": 1e-4}
    model = fresh()
    result = train(model, images(), folder=tmp_path, quiet=True, **options)
    assert result.status == "early stop"
    assert result.steps == result.best_step + 4 < 400
    assert task_of("classify").evaluate(model, images())["accuracy"] == result.score
    again = fresh(seed=5)
    resumed = train(again, images(), folder=tmp_path, quiet=True, resume=True, **options)
    assert (resumed.status, resumed.steps) == ("early stop", result.steps)
    assert same(again, model)


def test_it_stops_when_told_to(tmp_path):
    result = train(fresh(), images(), quiet=True, on_progress=lambda progress: progress.step < 6, **OPTIONS)
    assert (result.status, result.steps) == ("stopped", 6)
    result = train(fresh(), images(), folder=tmp_path, quiet=True, time_limit=1e-9, **OPTIONS)
    assert (result.status, result.steps) == ("time limit", 1)
    assert result.best_step == 1
    result = train(fresh(), images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    assert (result.status, result.steps) == ("finished", 12)


def test_a_loss_that_is_no_number_is_told(tmp_path):
    with pytest.raises(Diverged, match=r"diverged: the loss of step \d+ is (nan|inf).*learning_rate \(it is 1e\+30\)"):
        train(fresh(), images(), folder=tmp_path, quiet=True, **{**OPTIONS, "learning_rate": 1e30, "warmup": 0})
    assert issubclass(Diverged, FormeryError)
    assert checkpoint.newest(tmp_path)[0].state["step"] == 0


class Cracked(nn.Sequential):
    """No numbers where it is judged, though its training goes on."""

    def forward(self, images):
        return super().forward(images) * (1.0 if self.training else float("nan"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kept", [False, True])
def test_metrics_that_are_no_numbers_are_told(kept, tmp_path):
    model = Cracked(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(Diverged, match=r"loss on the validation part after step 3 is nan; lower the learning_rate"):
        train(model, images(), folder=tmp_path if kept else None, quiet=True, **SHARED)


def test_other_trainings_are_not_mixed(tmp_path):
    train(fresh(), images(), folder=tmp_path, quiet=True, until=3, **OPTIONS)
    with pytest.raises(Unwritable, match="holds a training; go on with resume"):
        train(fresh(), images(), folder=tmp_path, quiet=True, **OPTIONS)
    with pytest.raises(BadSpec, match=r"steps is 13, the training in .* was started with 12"):
        train(fresh(), images(), folder=tmp_path, quiet=True, resume=True, **{**OPTIONS, "steps": 13})
    with pytest.raises(BadSpec, match="started with another task"):
        train(fresh(), images(), SMOOTH, folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    with pytest.raises(BadSpec, match="started with another model"):
        train(nn.Linear(2, 2), images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    other = images()
    other.seed = 1
    with pytest.raises(BadSpec, match="other data or another seed"):
        train(fresh(), other, folder=tmp_path, quiet=True, resume=True, **OPTIONS)
    for path in checkpoint.found(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(BadFile, match=r"no checkpoint in .* is whole"):
        train(fresh(), images(), folder=tmp_path, quiet=True, resume=True, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": 13}, "until lies in"),
        ({"time_limit": 0}, "time_limit is a number of seconds"),
        ({"resume": True}, "needs the folder"),
        ({"devices": "tpu"}, "devices is 'auto'"),
        ({"devices": 0}, "devices is 'auto'"),
        ({"stepz": 3}, "did you mean steps"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(BadSpec, match=message):
        train(fresh(), images(), quiet=True, **{**OPTIONS, **options})


def test_half_precision_learns_text(tmp_path):
    data = TextData(bytes(range(32, 64)) * 60)
    task = task_of({"kind": "language", "length": 16})
    attention = {"kind": "stack", "depth": 1, "mixer": {"kind": "attention", "heads": 2, "position": "rope"}}
    spec = {"stem": {"kind": "tokens", "dim": 16, "vocab": 256}, "body": attention, "head": "next_token"}
    for precision in ("bf16", "32"):
        torch.manual_seed(0)
        model = formery.create_model(task.fit_spec(spec, data))
        options = {"steps": 60, "batch_size": 8, "eval_every": 30, "learning_rate": 0.02, "precision": precision}
        result = train(model, data, task, quiet=True, **options)
        assert (result.metric, model.stem.embed.weight.dtype) == ("bits_per_byte", torch.float32)
        assert result.score == -result.metrics["bits_per_byte"] > -1.5


def test_nothing_is_said_or_left_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(fresh(), images(), quiet=True, **OPTIONS)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    train(fresh(), images(), **OPTIONS)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) <= 4
    assert lines[0].startswith("step 3/12  loss ")
    assert "  accuracy 0." in lines[-1]


def test_a_step_is_timed_on_a_copy():
    model = fresh()
    seconds = seconds_per_step(model, images(), task_of("classify"), TrainConfig.of(OPTIONS), num=3)
    assert 0 < seconds < 5
    assert same(model, fresh())
    assert model.training


def test_a_run_needs_no_lightning():
    run = Run(fresh(), images(), task_of("classify"), TrainConfig.of(OPTIONS), {}, None)
    run.prepare(None, "")
    run.train_step(images().train_batch(0, 9), torch.Tensor.backward)
    assert run.judge()["step"] == run.step == 1
