"""Names of parts: found late, added by hand or by packages, each with one meaning, unknown ones explained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from formery import registry
from formery.errors import BadSpec, UnknownName
from formery.parts.norms.layer import Layer


@pytest.fixture
def clean() -> Iterator[None]:
    """Forgets what a test registers."""
    before = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(before)


def test_every_name_leads_to_a_class_with_a_docstring_and_examples() -> None:
    for role in registry.HOMES:
        names = list(registry.index(role))
        assert names == sorted(names)
        for name in names:
            found = registry.find(role, name)
            assert found.__doc__, (role, name)
            if isinstance(found, type):
                assert registry.name_of(role, found) == name


def test_sublayers_are_mixers_and_channel_mixers_under_names_of_their_own() -> None:
    mixers, channels = registry.index("mixer"), registry.index("channel")
    assert not mixers.keys() & channels.keys()
    assert registry.index("sublayer") == dict(sorted({**mixers, **channels}.items()))
    assert registry.find("sublayer", "mlp") is registry.find("channel", "mlp")
    assert registry.role_of("sublayer", "mlp") == "channel"
    assert registry.role_of("sublayer", "attention") == "mixer"
    assert registry.role_of("norm", "layer") == "norm"


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("mixer", "poolin", "no mixer is called 'poolin'; did you mean pooling?"),
        ("norm", "layers", "no norm is called 'layers'; did you mean layer?"),
        (
            "merge",
            "zzz",
            "no merge is called 'zzz'; there are: conv, convolved_attention, cross_scale, patch_merging, pooling",
        ),
    ],
)
def test_unknown_names_are_explained(role: str, name: str, message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        registry.find(role, name)
    assert str(caught.value) == message


def test_unknown_role() -> None:
    with pytest.raises(UnknownName, match="no role is called 'mixers'; did you mean mixer"):
        registry.index("mixers")


def test_hints() -> None:
    assert registry.nearest("x", []) == "there are none"
    assert registry.nearest("zz", ["b", "a"]) == "there are: a, b"
    assert registry.nearest("zz", map(str, range(20)), most=3) == "there are: 0, 1, 10, ..."


@pytest.mark.usefixtures("clean")
def test_registered_classes_are_found_listed_and_forgotten() -> None:
    registry.register("norm", "mine", Layer)
    registry.register("norm", "mine", Layer)  # a notebook's cell run again
    assert registry.find("norm", "mine") is Layer
    assert registry.index("norm")["mine"] == "formery.parts.norms.layer:Layer"
    registry.unregister("norm", "mine")
    registry.unregister("norm", "mine")
    assert "mine" not in registry.index("norm")


@pytest.mark.usefixtures("clean")
def test_registered_texts_are_imported_when_asked_for() -> None:
    registry.register("norm", "late", "formery.parts.norms.layer:Layer")
    registry.register("norm", "nowhere", "no_such_module:Norm")
    registry.register("norm", "nobody", "formery.parts.norms.layer:Nobody")
    assert registry.find("norm", "late") is Layer
    for name, target in (("nowhere", "no_such_module:Norm"), ("nobody", "formery.parts.norms.layer:Nobody")):
        with pytest.raises(UnknownName, match=f"norm '{name}' should be {target}, which cannot be imported: "):
            registry.find("norm", name)


@pytest.mark.usefixtures("clean")
def test_a_name_means_one_thing() -> None:
    for role, name in (("norm", "layer"), ("mixer", "attention"), ("mixer", "mlp"), ("channel", "attention")):
        with pytest.raises(BadSpec, match=f"{role} '{name}' is already formery.parts.*; choose another name"):
            registry.register(role, name, Layer)
    registry.register("norm", "mine", Layer)
    with pytest.raises(BadSpec, match="norm 'mine' is already"):
        registry.register("norm", "mine", "other:Norm")
    with pytest.raises(BadSpec, match="a target is a class or 'module:Class'"):
        registry.register("norm", "other", "formery.parts.norms.layer")
    with pytest.raises(UnknownName, match="no role is called 'nrom'"):
        registry.register("nrom", "other", Layer)


def test_packages_add_parts_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("theirs", "formery.parts.norms.layer:Layer", "formery.norm"),
        EntryPoint("broken", "no_such_package:Norm", "formery.norm"),
        EntryPoint("layer", "formery.parts.norms.rms:RMS", "formery.norm"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "formery.norm" else [])
    registry._foreign.cache_clear()
    try:
        assert registry.find("norm", "theirs") is Layer
        assert registry.index("norm")["theirs"] == "formery.parts.norms.layer:Layer"
        assert registry.find("norm", "layer") is Layer  # formery's own names stay formery's
        assert registry.index("norm")["layer"] == "formery.parts.norms.layer:Layer"
        assert "theirs" not in registry.index("mixer")
        with pytest.raises(UnknownName, match="norm 'broken' should be no_such_package:Norm, which cannot be imported"):
            registry.find("norm", "broken")
    finally:
        registry._foreign.cache_clear()


LIGHT = """
import sys, time
start = time.process_time()
import formery
from formery import cards, create, files, formats, layout, registry, spec
names = [registry.index(role) for role in registry.HOMES]
formery.list_models("*", aliases=True)
layout.parse("(a*3 b)*4").words()
seconds = time.process_time() - start
heavy = {"torch", "numpy", "lightning", "sklearn", "matplotlib", "timm", "transformers", "onnx"} & set(sys.modules)
print(sorted(heavy), seconds < 2.0, seconds)
"""


def test_names_specs_and_cards_come_without_torch_and_at_once() -> None:
    run = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("[] True"), run.stdout


def test_public_names() -> None:
    import formery

    assert formery.__all__ == ["Model", "accelerate", "create_model", "list_models", "register"]
    assert set(formery.__all__) <= set(dir(formery))
    assert all(callable(getattr(formery, name)) for name in formery.__all__)
    with pytest.raises(AttributeError, match="module 'formery' has no attribute 'modle'"):
        formery.modle  # noqa: B018
