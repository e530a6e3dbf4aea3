"""Drop: what is scored, what goes, what is left."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from formery import rewrites
from formery.context import Context
from formery.errors import BadData, CannotRewrite, CannotRun
from formery.model import Model
from formery.rewrites import anatomy, similarity
from formery.rewrites.checks import llm_drop, small
from formery.rewrites.report import Before
from tests.unit.rewrites_families import FAMILIES, error, inputs_for, model_of

drop = rewrites.find("drop")


def streams(model: Model, data: Tensor) -> list[Tensor]:
    """The stream of a pre-norm stack before every sublayer and at the end, worked out by hand."""
    x = model.stem(data, _context())[0]
    found = [x]
    for block in model.body.blocks:
        for index, _, part in block.steps():
            x = x + block.scheme.scales[index](part(block.scheme.norms[index](x), _context()))
            found.append(x)
    return found


def _context() -> Context:
    return Context(causal=True)


def test_similarities_are_those_of_the_stream() -> None:
    """Against the definition, over several batches of different lengths: every token counts once."""
    model = model_of("decoder")
    batches = [small.tokens(2, 12), small.tokens(3, 7)]
    subs: list[list[Tensor]] = [[] for _ in range(8)]
    runs: dict[tuple[int, int], list[Tensor]] = {}
    with torch.no_grad():
        for batch in batches:
            states = streams(model, batch)
            for i in range(8):
                subs[i].append(F.cosine_similarity(states[i], states[i + 1], dim=-1).flatten())
            for first in range(4):
                for span in range(1, 5 - first):
                    cosines = F.cosine_similarity(states[2 * first], states[2 * (first + span)], dim=-1)
                    runs.setdefault((first, span), []).append(cosines.flatten())
    parts = anatomy.of(model)
    found = list(similarity.of_sublayers(model, parts, batches).values())
    assert found == pytest.approx([torch.cat(sub).mean().item() for sub in subs], abs=1e-12)
    spans = list(similarity.of_spans(model, parts, batches).values())
    assert [len(span) for span in spans] == [4, 3, 2, 1]
    for (first, span), cosines in runs.items():
        assert spans[first][span - 1] == pytest.approx(torch.cat(cosines).mean().item(), abs=1e-12)
    blocks = list(similarity.of_blocks(model, parts, batches).values())
    assert blocks == pytest.approx([span[0] for span in spans])


def test_claims() -> None:
    found = llm_drop.identity()
    assert found["similarity"] == pytest.approx(1, abs=1e-12)
    assert found["dropped_are_the_zeros"] == 1
    assert found["change"] == 0
    for seed in range(3):
        planted = llm_drop.planted(seed)
        assert planted["planted"] == planted["dropped"]
    saved = llm_drop.savings(count=2)
    assert saved["state_after"] * saved["layers"] == saved["state_before"] * (saved["layers"] - saved["dropped"])
    assert saved["parameters_before"] - saved["parameters_after"] == saved["parameters_of_the_dropped"]
    assert max(llm_drop.decoding().values()) < 1e-10


def zeroed(model: Model, path: str) -> None:
    """Make a sublayer write zeros."""
    for name in model.get_submodule(path).writes:
        for parameter in model.get_submodule(f"{path}.{name}").parameters():
            parameter.zero_()


@torch.no_grad()
@pytest.mark.parametrize("family", ["decoder", "hybrid", "ladder", "sequence", "vit scaled", "metaformer"])
def test_dropping_what_adds_nothing_changes_nothing(family: str) -> None:
    """In every scheme that adds (a reordered norm without bias gives zeros for zeros), and across a ladder's delay."""
    model, data = model_of(family), inputs_for(FAMILIES[family])
    subs = [sub for _, _, sub in anatomy.of(model).sublayers() if sub.writes]
    gone = [subs[1], subs[-2]]
    for sub in gone:
        zeroed(model, sub.path)
    before = model(data)
    plan = drop.decide(model, data, unit="joint", count=2)
    assert {f"{step['block']}.{name}" for step in plan["steps"] for name in step["sublayers"]} == {s.path for s in gone}
    assert all(abs(plan["importance"][sub.path]) < 1e-12 for sub in gone)
    drop.perform(model, plan)
    assert torch.equal(model(data), before)
    left = {name for name, _ in model.named_modules()}
    for sub in gone:
        assert not any(name.startswith(sub.path) for name in left)


@torch.no_grad()
def test_whole_blocks_of_one_residual() -> None:
    """ConvNeXt's blocks can only go whole; what is left is a shell without parameters."""
    model, data = model_of("convnext"), inputs_for(FAMILIES["convnext"])
    with pytest.raises(CannotRewrite, match=r"in the scheme 'single' .* drop blocks \(--unit block\)"):
        drop.decide(model, data, unit="mixer", count=1)
    zeroed(model, "body.stages.1.blocks.0.channel")
    before = model(data)
    model, plan, report = rewrites.apply(model, "drop", data, unit="block", count=1)
    assert plan["steps"] == [{"block": "body.stages.1.blocks.0", "sublayers": ["mixer", "channel"]}]
    assert torch.equal(model(data), before)
    assert report["difference"] == 0
    assert list(model.body.stages[1].blocks[0].parameters()) == []
    for sublayers in (["mixer"], ["channel"]):
        steps = [{"block": "body.stages.0.blocks.0", "sublayers": sublayers}]
        with pytest.raises(CannotRewrite, match="can only be dropped together"):
            drop.perform(model, plan | {"steps": steps})
    for name in ("mixer", "channel"):  # and the scheme says so itself
        half = model_of("convnext")
        half.body.stages[0].blocks[0].hang(name, None)
        with pytest.raises(CannotRun, match="take all of them away, or none"):
            half(data)


@torch.no_grad()
def test_taps_and_shapes_stay() -> None:
    """A pyramid without some blocks has its maps at the same places; a stage may even lose all its blocks."""
    model, data = model_of("metaformer"), inputs_for(FAMILIES["metaformer"])
    shapes = [m.shape for m in model.forward_intermediates(data, intermediates_only=True)]
    steps = [{"block": f"body.stages.0.blocks.{i}", "sublayers": ["mixer", "channel"]} for i in (0, 1)]
    plan = drop.decide(model, data, unit="block", count=1)
    drop.perform(model, plan | {"steps": steps})
    assert [m.shape for m in model.forward_intermediates(data, intermediates_only=True)] == shapes
    assert [len(stage.blocks) for stage in anatomy.of(model).stages] == [2, 2]
    model.train()
    model(data).sum()


@torch.no_grad()
def test_iterative_scores_what_is_left() -> None:
    """After each drop the rest is scored anew; the model itself stays whole meanwhile."""
    model, data = model_of("decoder"), inputs_for(FAMILIES["decoder"])
    plan = drop.decide(model, data, unit="joint", count=3, iterative=True)
    assert len(list(model.mixers())) == 4
    by_hand = copy.deepcopy(model)
    wanted = []
    for _ in range(3):
        one = drop.decide(by_hand, data, unit="joint", count=1)
        drop.perform(by_hand, one)
        wanted += one["steps"]
    assert plan["steps"] == wanted
    drop.perform(model, plan)
    assert torch.equal(model(data), by_hand(data))
    assert len(plan["importance"]) == 3


def test_consecutive_blocks_stay_in_one_stage() -> None:
    model, data = model_of("poolformer"), inputs_for(FAMILIES["poolformer"])
    plan = drop.decide(model, data, unit="block", count=2, consecutive=True)
    first, second = (step["block"] for step in plan["steps"])
    assert first.rpartition(".")[0] == second.rpartition(".")[0]
    with pytest.raises(CannotRewrite, match="no stage has a run of 3 blocks; the longest has 2"):
        drop.decide(model, data, unit="block", count=3, consecutive=True)
    with pytest.raises(CannotRewrite, match="run of 3 blocks"):
        drop.decide(model, data, unit="block", count=2, consecutive=True, published_off_by_one=True)


def test_kinds() -> None:
    """In a hybrid only the attention layers, or only the recurrent ones, may be asked for."""
    model, data = model_of("hybrid"), inputs_for(FAMILIES["hybrid"])
    plan = drop.decide(model, data, unit="mixer", ratio=0.5, kinds=["attention"])
    assert plan["options"]["count"] == 1
    assert set(plan["importance"]) == {"body.blocks.2.mixer", "body.blocks.5.mixer"}
    plan = drop.decide(model, data, unit="mixer", ratio=0.5, kinds=["gated_deltanet"])
    assert set(plan["importance"]) == {f"body.blocks.{i}.mixer" for i in (0, 1, 3, 4)}


def test_dropping_twice() -> None:
    """A second drop looks at what is left; what is gone cannot go again."""
    model, data = model_of("decoder"), inputs_for(FAMILIES["decoder"])
    first = drop.decide(model, data, unit="mixer", count=2)
    drop.perform(model, first)
    second = drop.decide(model, data, unit="mixer", count=1)
    assert not {s["block"] for s in first["steps"]} & {s["block"] for s in second["steps"]}
    with pytest.raises(CannotRewrite, match=r"has no 'mixer' to drop \(any more\); it has channel"):
        drop.perform(model, first)
    drop.perform(model, second)
    with pytest.raises(CannotRewrite, match="would leave none of 1 mixers"):
        drop.decide(model, data, unit="mixer", count=1)
    assert [plan["kind"] for plan in model.plans] == ["drop", "drop"]


def test_streams_that_are_not_finite() -> None:
    model = model_of("decoder")
    model.stem.embed.weight.data[3] = float("inf")
    with pytest.raises(CannotRewrite, match="not finite"):
        drop.decide(model, torch.full((1, 4), 3), unit="mixer", count=1)


@torch.no_grad()
def test_watching_costs_no_change() -> None:
    """Scores with and without someone watching are equal; the watcher sees each sublayer once, in order."""
    model, data = model_of("hybrid"), inputs_for(FAMILIES["hybrid"])
    seen: list[str] = []
    found = similarity.watched(model, anatomy.of(model), data, lambda block, sub, before, after: seen.append(sub))
    assert found is None
    assert seen == [sub.path for _, _, sub in anatomy.of(model).sublayers()]


def test_reports_score_what_there_is() -> None:
    """Accuracy with targets, perplexity of tokens, nothing for images alone; batches as pairs, lists, mappings."""
    images, tokens = small.images(4), small.tokens(4, 12)
    vit, decoder = model_of("vit"), model_of("decoder")
    with torch.no_grad():
        predicted = vit(images).argmax(-1)
        targets = predicted.clone()
        targets[0] = (targets[0] + 1) % 10
        loss = F.cross_entropy(decoder(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert Before(vit, (images, targets)).score.value == 0.75
    assert Before(vit, [[images[:2], targets[:2]], (images[2:], targets[2:])]).score.value == 0.75
    assert Before(vit, {"pixel_values": images, "labels": targets}).score.value == 0.75
    assert Before(vit, [images[:2], images[2:]]).score.name is None
    assert Before(decoder, {"input_ids": tokens}).score.value == pytest.approx(loss.exp().item(), rel=1e-6)
    _, _, report = rewrites.apply(vit, "drop", (images, targets), unit="mixer", count=1)
    assert report["score"]["name"] == "accuracy"
    assert report["score"]["before"] == 0.75
    for wrong in (3, "data", [images, "labels"], {"pictures": images}):
        with pytest.raises(BadData, match="batch") as refusal:
            rewrites.apply(vit, "drop", wrong, unit="mixer", count=1)
        assert "\n" not in str(refusal.value)


@torch.no_grad()
def test_a_ladder_skips_as_if_zeros_came() -> None:
    """What waits to be added is added when the next sublayer's turn is skipped."""
    model, data = model_of("ladder"), inputs_for(FAMILIES["ladder"])
    zeroed(model, "body.blocks.1.mixer")
    zeroed(model, "body.blocks.1.channel")
    before = model(data)
    steps = [{"block": "body.blocks.1", "sublayers": ["mixer", "channel"]}]
    drop.perform(model, drop.decide(model, data, unit="block", count=1) | {"steps": steps})
    assert error(model(data), before) == 0


def test_what_branches_tell_each_other_stays() -> None:
    """Blocks of all branches are ranked, fusions are not; runs end where the branches meet."""
    model, data = model_of("branches"), inputs_for(FAMILIES["branches"])
    for unit, left in (("block", 6), ("mixer", 6), ("joint", 12)):
        plan = drop.decide(model, data, unit=unit, count=1)
        assert len(plan["importance"]) == left
        assert all(".branches." in path for path in plan["importance"])
        told = [r["where"] for r in plan["refused"]]
        assert [path.removesuffix(".mixer") for path in told] == [
            f"body.stages.{i}.fusions.{b}" for i in (0, 1) for b in (0, 1)
        ]
    with pytest.raises(CannotRewrite, match="what one stream tells another"):
        drop.decide(model, data, unit="mixer", count=1, kinds=["class_attention"])
    plan = drop.decide(model, data, unit="block", count=2, consecutive=True)
    assert sorted(plan["importance"]) == [f"body.stages.{i}.branches.1.blocks.0" for i in (0, 1)]
    with pytest.raises(CannotRewrite, match="the longest has 2"):
        drop.decide(model, data, unit="block", count=3, consecutive=True)


def test_words_and_tokens_are_ranked_together() -> None:
    model, data = model_of("nested"), inputs_for(FAMILIES["nested"])
    plan = drop.decide(model, data, unit="block", count=3)
    assert set(plan["importance"]) == {f"body.{name}.{i}" for name in ("inner", "outer") for i in (0, 1)}
    drop.perform(model, plan)
    assert model(data).isfinite().all()


def test_blocks_that_skip_tokens_are_judged_by_the_map() -> None:
    """Inside such a block stand the tokens that are kept; what it is for the next one is what it does to the map."""
    model, data = model_of("slow and fast"), inputs_for(FAMILIES["slow and fast"])
    maps = [model.stem(data, Context())[0]]
    features = model.body(maps[0], Context(taps=(0, 1)))
    maps += [features.maps[i] for i in (0, 1)]
    found = similarity.of_spans(model, anatomy.of(model), [data])
    for first, spans in enumerate(found.values()):
        for number, span in enumerate(spans, 1):
            cosines = F.cosine_similarity(maps[first], maps[first + number], dim=-1)
            assert span == pytest.approx(cosines.mean().item(), abs=1e-12)
