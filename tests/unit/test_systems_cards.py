"""Cards say what the classes do: counted parameters, capabilities, unique names, whole claims."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch

import formery
from formery import cards, registry
from formery.errors import UnknownName
from formery.measure import count_macs
from formery.model import Model
from formery.published import dialects_of
from formery.spec import resolve, walk
from formery.weights import match

VARIANTS = sorted(cards.variants())
PICTURES = {"image", "video"}


@functools.cache
def hollow(name: str) -> Model:
    """The variant without values, one for all tests of this file."""
    with torch.device("meta"):
        return Model(cards.spec_of(name)).eval()


NEEDED = ("title", "year", "code", "licence", "idea", "modalities", "parts", "variants")


@pytest.mark.parametrize("name", VARIANTS)
def test_counted_and_declared(name: str) -> None:
    """Parameters and MACs to the digit, on the meta device; capabilities as the classes have them.

    MACs are those of an image of the nominal size, or of the `macs_tokens` that the card says.
    """
    card, facts = cards.variants()[name], cards.variants()[name].variants[name]
    model = hollow(name)
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    shape = (1, facts["macs_tokens"]) if model.modality == "text" else ()
    assert count_macs(model, *shape).total == facts["macs"]
    assert facts["causal"] is model.head.causal
    assert facts["streams"] is model.streams
    assert card.modalities_of(name) == [model.modality]
    assert set(card.modalities_of(name)) <= set(card.modalities)
    assert model.name == name
    assert isinstance(facts["published"], dict)


@pytest.mark.parametrize("card", cards.cards().values(), ids=lambda card: card.name)
def test_card_is_whole(card: cards.Card) -> None:
    assert all(card.data.get(key) for key in NEEDED)
    assert all(text and text == text.strip() for key in ("notes", "disagreements") for text in card.data.get(key, []))
    for claim in card.claims:
        facts = {key: claim[key] for key in ("id", "says", "source", "bar", "check")}
        assert set(claim) <= {*facts, "slow", "measured"}
        assert all(isinstance(text, str) and text for text in facts.values())
        assert claim["check"].startswith(f"formery.claims.{card.name}:")
    assert len({claim["id"] for claim in card.claims}) == len(card.claims)
    used = {(role, node["kind"]) for name in card.variants for _, role, node in walk(resolve(cards.spec_of(name)))}
    declared = {tuple(part.split(".")) for part in card.data["parts"]}
    assert declared == {part for part in used if part[0] != "block"}
    for role, name in declared:
        registry.find(role, name)


@pytest.mark.parametrize("name", [n for n in VARIANTS if set(cards.variants()[n].modalities_of(n)) & PICTURES])
def test_prepared_as_the_model_is_built(name: str) -> None:
    """Nominal size, classes, and whether another size fits: what timm is told without building the model."""
    assert cards.variants()[name].data.get("preprocess")
    told, facts = cards.variants()[name].preprocess(name), hollow(name).default_cfg
    assert facts["input_size"][-2:] == (told["size"], told["size"])
    assert facts["num_classes"] == told["num_classes"]
    assert facts["fixed_input_size"] is told["fixed_input_size"]
    assert all(list(facts[key]) == told[key] for key in ("mean", "std"))
    assert all(facts[key] == told[key] for key in ("interpolation", "crop_pct"))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_has_a_group_and_its_decay(name: str) -> None:
    """Some group of depth, fine and coarse; what is no weight of a layer and no vector is left alone by decay."""
    model = hollow(name)
    parameters = dict(model.named_parameters())
    for matcher in (model.group_matcher(), model.group_matcher(coarse=True)):
        patterns = [matcher["stem"], *(pattern for pattern, _ in matcher["blocks"])]
        assert not [n for n in parameters if not any(re.match(pattern, n) for pattern in patterns)]
    assert model.no_weight_decay() <= parameters.keys()
    if set(cards.variants()[name].modalities_of(name)) & PICTURES:
        learned = {n for n, p in parameters.items() if p.requires_grad and p.dim() > 1 and not n.endswith("weight")}
        assert learned <= model.no_weight_decay()


@pytest.mark.parametrize("name", VARIANTS)
def test_counted_agrees_with_published(name: str) -> None:
    """To the digits that the papers print, unless the card says that they disagree."""
    facts = cards.variants()[name].variants[name]
    for ours, key in ((facts["params"], "params"), (facts["macs"], "macs"), (facts["macs"], "flops")):
        if text := facts["published"].get(key):
            scale = {"M": 1e6, "G": 1e9}[text[-1]]
            digits = len(text[:-1].partition(".")[2])
            agrees = abs(ours / scale - float(text[:-1])) <= 0.501 * 10**-digits
            assert agrees is (key not in facts.get("disagrees", ())), key


def test_names_are_unique() -> None:
    names = [n for card in cards.cards().values() for n in card.variants]
    names += [
        alias for card in cards.cards().values() for facts in card.variants.values() for alias in facts["aliases"]
    ]
    names += list(cards.cards())
    assert [name for name, count in Counter(names).items() if count > 1] == []
    kinds = [kind for card in cards.cards().values() for kind in card.model_types]
    assert len(kinds) == len(set(kinds))


def test_every_alias_builds() -> None:
    for alias, name in cards.aliases().items():
        assert cards.canonical(alias) == name
    assert cards.canonical("timm/poolformer_s12.sail_in1k") == "poolformer_s12"
    with pytest.raises(UnknownName, match="did you mean convnext_"):
        cards.canonical("convnext_tinny")


def test_every_system_module_has_what_its_card_says() -> None:
    for card in cards.cards().values():
        module = cards.module_of(card)
        for name in card.variants:
            found = module.dialects(resolve(cards.spec_of(name)))
            assert found
            assert len({dialect.name for dialect in found}) == len(found)
        assert callable(getattr(module, "from_config", None)) is bool(card.model_types)


def test_dialects_reach_every_tensor_of_some_dialect() -> None:
    """No variant has a tensor that no published file could hold, nor two tensors of one published name."""
    for name in VARIANTS:
        model, num_whole = hollow(name), 0
        for dialect in dialects_of(model):
            found = {n: match(n, dialect.rules) for n in model.state_dict()}
            if all(found.values()):
                num_whole += 1
                theirs = [t for _, names in {(m.ours, m.theirs) for m in found.values() if m} for t in names]
                assert len(theirs) == len(set(theirs)), (name, dialect.name)
        assert num_whole, name


def test_list_models() -> None:
    assert formery.list_models("poolformer_*") == sorted(n for n in VARIANTS if n.startswith("poolformer_"))
    assert "olmo_hybrid_tiny" in formery.list_models(streams=True, modality="text")
    assert formery.list_models(streams=True, modality="image") == []
    assert "google/vit-base-patch16-224" in formery.list_models("*patch16*", aliases=True)


def test_cards_need_no_torch() -> None:
    code = "import sys, formery; from formery import cards; formery.list_models(); assert cards.card('vit').claims; "
    code += "assert cards.canonical('sail/poolformer_s12') == 'poolformer_s12'; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_random_study_has_the_papers_frozen_numbers() -> None:
    """Table 5: 21 million frozen numbers beside the 11.9 million parameters, rows that sum to one."""
    model = hollow("metaformer_rand_s12")
    assert sum(buffer.numel() for buffer in model.buffers()) == 2 * 3136**2 + 2 * 784**2 + 6 * 196**2 + 2 * 49**2
    small = formery.create_model("metaformer_rand_s12", img_size=32)
    for buffer in small.buffers():
        torch.testing.assert_close(buffer.sum(-1), torch.ones(len(buffer)))
