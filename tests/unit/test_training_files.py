"""Checkpoints are whole or passed over; the journal is cut to where training goes on."""

import json

import pytest
import torch
from torch import nn

from formery.errors import BadFile, Unwritable
from formery.training import checkpoint, journal
from formery.training.checkpoint import Checkpoint


def at(step, **tensors):
    return Checkpoint({name: torch.as_tensor(value) for name, value in tensors.items()}, {"step": step, "best": None})


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(5).bfloat16(), "c": torch.tensor(3), "d": torch.zeros(0)}
    state = {"step": 7, "seconds": 0.1 + 0.2, "best": {"score": -1e-300}, "none": None}
    path = checkpoint.save(tmp_path, Checkpoint(tensors, state))
    found = checkpoint.read(path)
    assert found.state == {"format": 1, **state}
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[n], t) and found.tensors[n].dtype == t.dtype for n, t in tensors.items())
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000000007.safetensors"]


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 20, 3, 100):
        checkpoint.save(tmp_path, at(step, a=step))
    assert [checkpoint.read(p).state["step"] for p in checkpoint.found(tmp_path)] == [100, 20]


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_truncated_checkpoint_is_passed_over(tmp_path, cut):
    checkpoint.save(tmp_path, at(1, a=[1.0, 2.0]))
    path = checkpoint.save(tmp_path, at(2, a=[3.0, 4.0]))
    path.write_bytes(path.read_bytes()[:cut])
    found, faults = checkpoint.newest(tmp_path)
    assert found.state["step"] == 1
    assert len(faults) == 1
    assert "truncated or damaged" in faults[0]


def test_an_altered_checkpoint_is_passed_over(tmp_path):
    checkpoint.save(tmp_path, at(1, a=[1.0, 2.0]))
    path = checkpoint.save(tmp_path, at(2, a=[3.0, 4.0]))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found, faults = checkpoint.newest(tmp_path)
    assert found.state["step"] == 1
    assert "altered" in faults[0]


def test_an_altered_state_is_passed_over(tmp_path):
    """The learning rate, the place in the data: what is no tensor is vouched for as well."""
    checkpoint.save(tmp_path, at(1, a=[1.0, 2.0]))
    path = checkpoint.save(tmp_path, at(2, a=[3.0, 4.0]))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'\\"step\\": 2', b'\\"step\\": 3'))
    assert path.read_bytes() != content
    found, faults = checkpoint.newest(tmp_path)
    assert found.state["step"] == 1
    assert "altered" in faults[0]


def test_without_a_whole_one_nothing_is_guessed(tmp_path):
    assert checkpoint.newest(tmp_path) == (None, [])
    for step in (1, 2):
        checkpoint.save(tmp_path, at(step, a=1.0)).write_bytes(b"")
    with pytest.raises(BadFile, match="start again in another folder"):
        checkpoint.newest(tmp_path)


def test_pickles_are_no_checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save({"step": 1}, tmp_path / "checkpoints" / "step-000000001.safetensors")
    with pytest.raises(BadFile):
        checkpoint.newest(tmp_path)


def test_bests_that_no_checkpoint_speaks_of_go(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save_best(tmp_path, step, {"a": torch.ones(1)})
    checkpoint.drop_bests(tmp_path, {2, 3})
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("best*")) == [
        "best-000000002.safetensors",
        "best-000000003.safetensors",
    ]


def test_tensors_are_copied_into_the_module(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    before = model[0].weight.data_ptr()
    wanted = {name: torch.full_like(t, 3) for name, t in model.state_dict().items()}
    checkpoint.put(model, wanted, "here")
    assert model[0].weight.data_ptr() == before
    assert all((t == 3).all() for t in model.state_dict().values())
    del wanted["1.bias"]
    with pytest.raises(BadFile, match=r"lacks 1\.bias"):
        checkpoint.put(model, wanted, "here")
    with pytest.raises(BadFile, match=r"0\.weight does not fit"):
        checkpoint.put(model, {"0.weight": torch.zeros(2, 3)}, "here")


def test_tied_tensors_are_put_once():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    checkpoint.put(model, {"0.weight": torch.ones(2, 2)}, "here")
    assert (model[1].weight == 1).all()


def entry_of(step):
    metrics = {"accuracy": 0.5, "items": 9}
    return {"step": step, "loss": step / 3, "rate": 1e-3, "score": 0.5, "metrics": metrics, "seconds": 0.1}


def test_the_journal_is_cut_where_training_goes_on(tmp_path):
    assert journal.read(tmp_path) == []
    entries = [entry_of(step) for step in (5, 10, 15)]
    for entry in entries:
        journal.append(tmp_path, entry)
    with open(tmp_path / journal.NAME, "a") as file:
        file.write('{"step": 20, "lo')
    assert [entry["step"] for entry in journal.read(tmp_path)] == [5, 10, 15]
    assert journal.cut(tmp_path, 10) == entries[:2]
    journal.append(tmp_path, entry_of(15))
    lines = (tmp_path / journal.NAME).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 10, 15]


@pytest.mark.parametrize(
    "line", ['{"step": "x"}', "[]", "3", "{", '{"step": 5}', json.dumps(entry_of(5) | {"step": True}), "[" * 9999]
)
def test_a_journal_edited_by_hand_is_refused(line, tmp_path):
    journal.append(tmp_path, entry_of(1))
    with open(tmp_path / journal.NAME, "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(
        BadFile, match=r"journal\.jsonl: line 2 is no entry of a training's journal; mend it, or remove"
    ):
        journal.cut(tmp_path, 10)
    assert journal.cut(tmp_path, -1) == []  # where all of it goes, nobody looks


def test_a_journal_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / journal.NAME).mkdir()
    with pytest.raises(Unwritable, match="cannot write"):
        journal.append(tmp_path, {"step": 1})
