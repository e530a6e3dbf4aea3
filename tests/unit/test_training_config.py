"""What training is told: strict options, the schedule, which weights decay."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

import formery
from formery.errors import BadSpec
from formery.training import TrainConfig
from formery.training.batches import pieces
from formery.training.optimizer import adamw, averages, decay_groups, put_averages, update_counts
from formery.training.schedule import rate


def test_a_config_is_whole_and_plain():
    config = TrainConfig.of(steps=400, learning_rate=1)
    assert (config.warmup, config.eval_every, config.learning_rate) == (20, 20, 1.0)
    assert TrainConfig.of(config.plain()) == config
    assert TrainConfig.of(config, steps=100).warmup == 5
    assert TrainConfig.of({"steps": 10, "warmup": 3}, warmup=0).warmup == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "training needs steps"),
        ({"steps": 0}, r"training\.steps: input should be greater than 0, got 0"),
        ({"steps": "10"}, r"training\.steps: .*integer, got '10'"),
        ({"steps": True}, r"training\.steps"),
        ({"steps": 10, "learning_rat": 1e-3}, "no option 'learning_rat'; did you mean learning_rate"),
        ({"steps": 10, "schedule": "cos"}, r"training\.schedule: .*'cosine'.* got 'cos'"),
        ({"steps": 10, "warmup": 11}, "warmup is at most steps"),
        ({"steps": 10, "batch_size": 2, "accumulate": 3}, "accumulate is at most batch_size"),
        ({"steps": 10, "betas": [0.9, 1.0]}, "betas lie in"),
        ({"steps": 10, "ema": 1.0}, r"training\.ema"),
        ({"steps": 10, "precision": "64"}, r"training\.precision"),
        ({"steps": 10, "learning_rate": math.nan}, r"training\.learning_rate"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(BadSpec, match=message):
        TrainConfig.of(options)


def test_the_rate_rises_and_falls():
    config = TrainConfig.of(steps=100, warmup=10, learning_rate=2.0, final_rate=0.1)
    rates = [rate(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert rates[100] == pytest.approx(0.2)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    linear = TrainConfig.of(steps=10, warmup=0, schedule="linear", learning_rate=1.0)
    assert [rate(linear, step) for step in (0, 5, 10)] == [1.0, 0.5, 0.0]
    constant = TrainConfig.of(steps=10, warmup=0, schedule="constant", learning_rate=1.0)
    assert rate(constant, 9) == 1.0


def test_vectors_and_what_the_model_names_do_not_decay():
    mixer = {"kind": "gated_deltanet", "heads": 2, "head_dim": 4}
    model = formery.create_model(
        {
            "stem": {"kind": "tokens", "dim": 8, "vocab": 16},
            "body": {"kind": "stack", "depth": 1, "mixer": mixer, "prefix": 0},
            "head": {"kind": "next_token", "tie": True},
        }
    )
    model.body.blocks[0].channel.requires_grad_(False)
    decayed, spared = decay_groups(model, 0.3)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {*decayed["names"], *spared["names"]} == trainable
    assert all(p.dim() > 1 for p in decayed["params"])
    assert {n for n, p in model.named_parameters() if p.dim() <= 1 and p.requires_grad} <= set(spared["names"])
    # The tied table is exempt under its first name, and stands there once.
    assert "stem.embed.weight" in spared["names"]
    assert "body.blocks.0.mixer.project.weight" in decayed["names"]
    assert sum(len(g["params"]) for g in (decayed, spared)) == len(
        {id(p) for g in (decayed, spared) for p in g["params"]}
    )


def test_foreign_models_are_grouped_too():
    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.fc = nn.Parameter(torch.zeros(3, 3)), nn.Linear(3, 3)

        def no_weight_decay(self):
            return {"table"}

    names = [group["names"] for group in decay_groups(Theirs(), 0.1)]
    assert names == [["fc.weight"], ["table", "fc.bias"]]
    assert [group["names"] for group in decay_groups(nn.LayerNorm(3), 0.1)] == [["weight", "bias"]]


def test_the_optimizer_state_goes_by_names():
    config = TrainConfig.of(steps=10)
    first, second = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    one, two = adamw(first, config), adamw(second, config)
    for model in (first, first, second):  # one step more for the first
        model.zero_grad()
        model(torch.ones(3, 4)).square().sum().backward()
        (one if model is first else two).step()
    put_averages(two, {n: t.clone() for n, t in averages(one).items()}, update_counts(one))
    second.load_state_dict(first.state_dict())
    for model, optimizer in ((first, one), (second, two)):
        model.zero_grad()
        model(torch.full((3, 4), 0.5)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert update_counts(two) == {name: 3 for name, _ in second.named_parameters()}


def test_pieces_are_the_batch():
    inputs, targets = torch.arange(10.0), torch.arange(10)
    parts = list(pieces((inputs, targets), 4))
    assert torch.equal(torch.cat([part[0] for part in parts]), inputs)
    assert torch.equal(torch.cat([part[1] for part in parts]), targets)
    assert sum(part[2] for part in parts) == pytest.approx(1)
    assert sum((part[0] * 1.0).mean() * part[2] for part in parts) == pytest.approx(inputs.mean().item())
