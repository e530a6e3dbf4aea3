"""Cards say what the classes do: counted parameters, capabilities, unique names, whole claims."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch

import formery
from formery import cards, registry
from formery.errors import UnknownName
from formery.model import Model
from formery.spec import resolve, walk

VARIANTS = sorted(cards.variants())
NEEDED = ("title", "year", "code", "licence", "idea", "modalities", "parts", "variants")


@pytest.mark.parametrize("name", VARIANTS)
def test_counted_and_declared(name: str) -> None:
    """Parameters to the digit, on the meta device; capabilities as the classes have them."""
    card, facts = cards.variants()[name], cards.variants()[name].variants[name]
    with torch.device("meta"):
        model = Model(cards.spec_of(name))
    assert sum(p.numel() for p in model.parameters()) == facts["params"]
    assert facts["causal"] is model.head.causal
    assert facts["streams"] is model.streams
    assert model.modality in card.modalities
    assert model.name == name
    assert isinstance(facts["published"], dict)


@pytest.mark.parametrize("card", cards.cards().values(), ids=lambda card: card.name)
def test_card_is_whole(card: cards.Card) -> None:
    assert all(card.data.get(key) for key in NEEDED)
    assert all(text and text == text.strip() for key in ("notes", "disagreements") for text in card.data.get(key, []))
    for claim in card.claims:
        assert set(claim) == {"id", "says", "source", "bar", "check"}
        assert all(isinstance(text, str) and text for text in claim.values())
        assert claim["check"].startswith(f"formery.claims.{card.name}:")
    assert len({claim["id"] for claim in card.claims}) == len(card.claims)
    used = {(role, node["kind"]) for name in card.variants for _, role, node in walk(resolve(cards.spec_of(name)))}
    declared = {tuple(part.split(".")) for part in card.data["parts"]}
    assert declared == {part for part in used if part[0] != "block"}
    for role, name in declared:
        registry.find(role, name)


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
    from formery.published import dialects_of
    from formery.weights import match

    for name in VARIANTS:
        with torch.device("meta"):
            model = Model(cards.spec_of(name))
        names = list(model.state_dict())
        whole = [d for d in dialects_of(model) if all(match(n, d.rules) for n in names)]
        assert whole, name
        for dialect in whole:
            theirs = [t for ours in {match(n, dialect.rules).ours: 0 for n in names} for t in _theirs(ours, dialect)]
            assert len(theirs) == len(set(theirs)), (name, dialect.name)


def _theirs(ours: tuple[str, ...], dialect: object) -> tuple[str, ...]:
    from formery.weights import match

    found = match(ours[0], dialect.rules)  # type: ignore[attr-defined]
    assert found is not None
    return found.theirs


def test_list_models() -> None:
    assert formery.list_models("poolformer_*") == sorted(n for n in VARIANTS if n.startswith("poolformer"))
    assert "olmo_hybrid_tiny" in formery.list_models(streams=True, modality="text")
    assert formery.list_models(streams=True, modality="image") == []
    assert "google/vit-base-patch16-224" in formery.list_models("*patch16*", aliases=True)


def test_cards_need_no_torch() -> None:
    code = (
        "import sys, formery; from formery import cards; formery.list_models(); assert cards.card('vit').claims == []; "
    )
    code += "assert cards.canonical('sail/poolformer_s12') == 'poolformer_s12'; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_random_study_has_the_papers_frozen_numbers() -> None:
    """Table 5: 21 million frozen numbers beside the 11.9 million parameters, rows that sum to one."""
    with torch.device("meta"):
        model = Model(cards.spec_of("metaformer_rand_s12"))
    assert sum(buffer.numel() for buffer in model.buffers()) == 2 * 3136**2 + 2 * 784**2 + 6 * 196**2 + 2 * 49**2
    small = formery.create_model("metaformer_rand_s12", img_size=32)
    for buffer in small.buffers():
        torch.testing.assert_close(buffer.sum(-1), torch.ones(len(buffer)))
