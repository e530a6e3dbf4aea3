from __future__ import annotations

from collections.abc import Callable

import pytest

from formery import cards, registry
from tests.cli.conftest import Answer

Ask = Callable[..., Answer]


def test_every_variant_is_listed_with_its_facts(ask: Ask) -> None:
    rows = ask("list", "--json").json
    assert [row["name"] for row in rows] == sorted(cards.variants())
    by_name = {row["name"]: row for row in rows}
    assert by_name["vit_tiny"]["params"] == cards.variants()["vit_tiny"].variants["vit_tiny"]["params"]
    assert by_name["olmo_hybrid_7b"]["streams"] is True


def test_a_table_has_a_line_for_each(ask: Ask) -> None:
    answer = ask("list", "poolformer_*")
    lines = [line.split()[0] for line in answer.out.splitlines() if line.startswith(" poolformer_")]
    assert lines == sorted(name for name in cards.variants() if name.startswith("poolformer_"))
    assert all(line == line.rstrip() for line in answer.out.splitlines())


@pytest.mark.parametrize(("pattern", "found"), [("vit_t*", {"vit_tiny"}), ("deit_tiny_patch16_224", {"deit_tiny"})])
def test_patterns_reach_names_and_aliases(pattern: str, found: set[str], ask: Ask) -> None:
    assert {row["name"] for row in ask("list", pattern, "--json").json} == found


def test_a_system_stands_for_its_variants(ask: Ask) -> None:
    rows = ask("list", "metaformer", "--json").json
    assert {row["name"] for row in rows} == set(cards.cards()["metaformer"].variants)


@pytest.mark.parametrize("flag", ["causal", "streams"])
def test_capabilities_choose(flag: str, ask: Ask) -> None:
    yes, no, everything = (ask("list", *more, "--json").json for more in ([f"--{flag}"], [f"--not-{flag}"], []))
    assert yes
    assert no
    assert all(row[flag] for row in yes)
    assert not any(row[flag] for row in no)
    assert len(yes) + len(no) == len(everything)


def test_modalities_choose_and_may_leave_nothing(ask: Ask) -> None:
    assert {m for row in ask("list", "--modality", "text", "--json").json for m in row["modalities"]} == {"text"}
    assert ask("list", "vit_*", "--modality", "text", "--json").json == []
    assert ask("list", "vit_*", "--modality", "text").out.startswith("0 models")


@pytest.mark.parametrize("role", registry.HOMES)
def test_parts_of_every_role(role: str, ask: Ask) -> None:
    rows = ask("list", "--role", role, "--json").json
    assert [row["name"] for row in rows] == list(registry.index(role))
    assert all(row["says"] for row in rows)


@pytest.mark.parametrize("plural", ["mixers", "norms", "bodies", "merges"])
def test_plurals_name_roles_too(plural: str, ask: Ask) -> None:
    assert ask("list", plural).code == 0


@pytest.mark.parametrize("family", ["poolformer", "efficientformerv2", "t2t_vit"])
def test_a_familys_name_is_a_pattern(family: str, ask: Ask) -> None:
    rows = ask("list", family, "--json").json
    assert len(rows) > 2
    assert rows == ask("list", f"{family}_*", "--json").json


def test_the_nearest_name_is_offered(refused: Callable[..., str]) -> None:
    assert "vit_tiny" in refused("list", "vit_tinny")
    assert "mixer" in refused("list", "--role", "mixr")
    assert "image" in refused("list", "--modality", "imag")
    assert "leave them out" in refused("list", "--role", "mixer", "--causal")
    assert "pooling" in refused("list", "--role", "mixer", "poling")
