"""Specs as JSON and YAML: what is written is what is read, by anyone, or it is refused."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from formery.errors import BadSpec
from formery.formats import from_json, from_yaml, to_json, to_yaml

TRAPS = [
    'no', 'on', 'off', 'yes', 'y', 'n', 'true', 'False', 'null', '~', 'Null', '1e-5', '1.', '.5', '0x1F',
    '0o17', '010', '1_000', '1:30', '12:30:45', '2001-01-01', '=', '<<', '-', '!tag', '&a', '*a', '@a', '`',
    '%', "'", '"', '|', '>', '?', '[', '{', 'nan', '.nan', 'inf', '-.inf', 'é', '', ' ', '- a', 'a: b', '# a',
    'a #b', '\n', 'a\nb', '\t', '\x85', '\u2028', '\x00', '\x7f', '\ufeff',
]  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(TRAPS)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=10
)


def same(a: object, b: object) -> bool:
    """Equal, with equal types throughout: 1 is not 1.0 or true."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(plain)
def test_round_trips_are_exact(value: object) -> None:
    assert same(from_json(to_json(value)), value)
    assert same(from_yaml(to_yaml(value)), value)


@given(plain)
def test_any_reader_of_yaml_reads_the_same(value: object) -> None:
    assert same(yaml.safe_load(to_yaml(value)), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("-.5", -0.5), ("1.", 1.0), ("3", 3), ("-3", -3), ("010", 10), ("1_000", "1_000"),
        ("no", "no"), ("on", "on"), ("y", "y"), ("true", True), ("FALSE", False), ("null", None), ("~", None),
        ("", None), ("'no'", "no"), ("'1e-5'", "1e-5"),
        ("1:30", "1:30"), ("2001-01-01", "2001-01-01"), ("0x1F", "0x1F"),
        ("[a, 1, 1.0]", ["a", 1, 1.0]), ("{no: off}", {"no": "off"}), ("a: 1\nb: [x]", {"a": 1, "b": ["x"]}),
    ],
)  # fmt: skip
def test_yaml_is_read_as_its_newer_version_means_it(text: str, value: object) -> None:
    assert same(from_yaml(text), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "a is written twice; keep one"),
        ("a: [1", "not YAML, line 1: "),
        ("a: 1\n b: 2", "not YAML, line 2: "),
        ("!!python/object/apply:os.system [ls]", "not YAML, line 1: could not determine a constructor"),
        ("a: !mine 3", "not YAML, line 1: could not determine a constructor"),
        ("a: !!binary aGFsbG8=", "a spec is plain data: Object of type bytes"),
        ("!!set {a, b}", "a spec is plain data: Object of type set"),
        ("a: !!int abc", "not YAML that a spec could be: "),
        ("a: !!float .nan", "not YAML that a spec could be: "),
        ("a: !!float inf", "numbers are finite, got inf"),
        ("a: 1e999", "numbers are finite, got 1e999"),
        ("1: a", "line 1: a mapping's keys are texts, got 1; put it in quotes"),
        ("a:\n  null: b", "line 2: a mapping's keys are texts, got None; put it in quotes"),
        ("[a, b]: c", "a mapping's keys are texts"),
        ("--- a\n--- b", "not YAML, line 2: but found another document"),
        ("a: &x [*x]", "line 1: &x: anchors and aliases are not read; write it out"),
        ("a: 1\nb: *x", "line 2: *x: anchors and aliases are not read; write it out"),
        ("[" * 100_000, "line 1: nested deeper than 100 levels"),
        ("a: \x01", "not YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        from_yaml(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_are_not_endless() -> None:
    for read in (from_json, from_yaml):
        with pytest.raises(BadSpec, match="at most 4000000 characters, this text has 4000002"):
            read('"' + "b" * 4_000_000 + '"')


def test_a_few_lines_do_not_grow_into_billions() -> None:
    lines = [
        "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]",
        *(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 10)),
    ]
    with pytest.raises(BadSpec, match="&x0: anchors and aliases"):
        from_yaml("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "a is written twice; keep one"),
        ('{"a": NaN}', "numbers are finite, got NaN"),
        ('{"a": -Infinity}', "numbers are finite, got -Infinity"),
        ('{"a": 1e999}', "numbers are finite, got 1e999"),
        ('{"a": 1,\n}', "not JSON, line "),
        ("", "not JSON, line 1: Expecting value"),
        ("[" * 100_000, "not JSON that a spec could be: "),
        ("1" * 5000, "not JSON that a spec could be: "),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        from_json(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "value", [{"a": float("nan")}, {"a": float("inf")}, {"a": {1, 2}}, {"a": object()}, {1: "a"}, [{None: 1}]]
)
def test_what_is_not_plain_is_not_written(value: object) -> None:
    for write in (to_json, to_yaml):
        with pytest.raises(BadSpec, match=r"plain data|keys are texts"):
            write(value)


def test_what_is_written_is_readable() -> None:
    spec = {"kind": "pre", "eps": 1e-5, "name": "größe", "empty": {}, "list": ["no", 1.0]}
    assert to_yaml(spec) == "kind: pre\neps: 1.0e-05\nname: größe\nempty: {}\nlist:\n- 'no'\n- 1.0\n"
    assert json.loads(to_json(spec)) == spec
    shared = ["a"]
    assert to_yaml({"x": shared, "y": shared}) == "x:\n- a\ny:\n- a\n"
