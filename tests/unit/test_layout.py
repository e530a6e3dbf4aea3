"""The layout language: printed as it was written, refused where it stops being one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formery.errors import BadSpec
from formery.layout import MOST_WORDS, Call, Layout, Repeat, allocate, compress, parse
from tests.goldens import recorded

words = st.from_regex(r"[A-Za-z_][\w.-]{0,8}", fullmatch=True)
counts = st.integers(1, 5)


def layouts(items: st.SearchStrategy[str | Layout]) -> st.SearchStrategy[Layout]:
    item = items | st.builds(Repeat, items, counts)
    return st.lists(item, min_size=1, max_size=3).map(lambda found: Layout(tuple(found)))


nested = st.recursive(layouts(words), lambda inner: layouts(words | inner), max_leaves=8)


@given(nested)
def test_printing_and_parsing_are_inverse(layout: Layout) -> None:
    text = str(layout)
    assert parse(text) == layout
    assert str(parse(text)) == text
    assert parse(f"  {text} ".replace(" ", "  ").replace("(", " ( ").replace("*", " * ")) == layout


@given(nested)
def test_words_are_those_of_the_expanded_text(layout: Layout) -> None:
    def expanded(item: str | Layout | Repeat) -> list[str]:
        if isinstance(item, str):
            return [item]
        if isinstance(item, Repeat):
            return expanded(item.item) * item.count
        return [word for inner in item.items for word in expanded(inner)]

    assert layout.words() == expanded(layout)


@given(st.lists(st.sampled_from(["a", "b", "c.d"]), min_size=1, max_size=24))
def test_compressed_layouts_have_the_same_words(found: list[str]) -> None:
    text = compress(found)
    assert parse(text).words() == found
    assert len(text) <= len(" ".join(found)) or len(found) < 3


def test_examples() -> None:
    assert parse("(gated_deltanet*3 attention)*4").words() == (["gated_deltanet"] * 3 + ["attention"]) * 4
    assert parse("a (b c*2)*2 d").words() == ["a", "b", "c", "c", "b", "c", "c", "d"]
    assert compress(["a", "a", "a", "b"] * 4) == "(a*3 b)*4"
    assert compress(["a"] * 12) == "a*12"
    assert compress(["a"]) == "a"
    assert compress(["a", "b", "b"]) == "a b*2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty layout: write at least one block, e.g. 'attention*4'"),
        ("   ", "an empty layout: write at least one block, e.g. 'attention*4'"),
        ("a,b", "layout 'a,b', at character 2: expected a name, '(' , ')' or '*' with a count"),
        ("a b 3", "layout 'a b 3', at character 4: expected a name, '(' , ')' or '*' with a count"),
        ("(a b", "layout '(a b', at character 5: '(' without ')'"),
        ("a b)", "layout 'a b)', at character 4: ')' without '('"),
        ("a ()", "layout 'a ()', at character 4: an empty group"),
        ("a*0", "layout 'a*0', at character 2: a count is 1 to 4096"),
        ("*3", "layout '*3', at character 1: a '*' with a count follows a name or a group, once"),
        ("a*2*3", "layout 'a*2*3', at character 4: a '*' with a count follows a name or a group, once"),
        ("(*2)", "layout '(*2)', at character 2: a '*' with a count follows a name or a group, once"),
        ("a*", "layout 'a*', at character 2: expected a name, '(' , ')' or '*' with a count"),
    ],
)
def test_what_is_no_layout_is_shown_where(text: str, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        parse(text)
    assert str(caught.value) == message


def test_slips_of_the_pen_do_not_fill_the_memory() -> None:
    assert len(parse(f"a*{MOST_WORDS}").words()) == MOST_WORDS
    for text in ("(a*4096)*2", "((a*1000)*1000)*1000", "a*4096 a"):
        with pytest.raises(BadSpec, match="has more than 4096 blocks"):
            parse(text).words()
    for text in ("a*4097", f"a*{10**30}", "a*" + "9" * 5000):
        with pytest.raises(BadSpec, match="at character 2: a count is 1 to 4096") as caught:
            parse(text)
        assert len(str(caught.value)) < 200
    with pytest.raises(BadSpec, match="nested more than 32 deep"):
        parse("(" * 40 + "a" + ")" * 40)


# ------------------------------------------------------------------------------------------------ shares

CASES = [
    (56, 0.08, 0.5), (24, 0.08, 0.5), (48, 0.1, 0.3), (10, 0.2, 0.2), (9, 0, 0), (52, 0.08, 0.5), (12, 0.25, 0),
    (48, 0.5, 0.2), (32, 0.125, 0.375), (7, 0.3, 0.3), (118, 0.09, 0.4),
]  # fmt: skip
WORDS = ("mamba2", "attention", "mlp")
shares = st.sampled_from([".08", "0.5", "1", "0", "0.", "1.0", ".25"])
calls = st.builds(
    Call,
    st.integers(2, 40),
    st.lists(st.tuples(st.sampled_from(["a", "b.c"]), shares), max_size=1).map(tuple),
    st.sampled_from([None, "rest", "r-2"]),
)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_published_allocation(case: int) -> None:
    """Megatron's algorithm, recorded: 0 for Mamba-2, 1 for attention, 2 for an MLP."""
    count, attention, mlp = CASES[case]
    wanted = [WORDS[int(number)] for number in recorded("hybrid_allocation")[f"case{case}"]["head"]]
    assert allocate(count, {"attention": attention, "mlp": mlp}) == wanted
    assert parse(f"allocate({count}, attention={attention}, mlp={mlp})").words() == wanted


def test_the_hybrids_order() -> None:
    text = "allocate(56, attention=.08, mlp=.5)"
    symbols = {"mamba2": "M", "attention": "*", "mlp": "-"}
    assert str(parse(text)) == text
    found = "".join(symbols[word] for word in parse(text).words())
    assert found == "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"
    assert parse("a allocate(3, b, c=.4)*2").words() == ["a", "b", "c", "b", "b", "c", "b"]


@given(st.integers(1, 130), st.floats(0, 1), st.floats(0, 1))
def test_numbers_are_the_rounded_shares(count: int, first: float, second: float) -> None:
    wanted = (round(count * first), round(count * second))
    if sum(wanted) > count:
        with pytest.raises(BadSpec, match="are more than"):
            allocate(count, {"b": first, "c": second}, "a")
        return
    words = allocate(count, {"b": first, "c": second}, "a")
    assert (words.count("b"), words.count("c")) == wanted
    if wanted[1]:
        assert [word for word in words if word != "b"][-1] == "c"
    if 0 < wanted[0] < count / 2:
        assert "b" not in (words[0], words[-1])


def test_halves_are_rounded_to_the_even_number() -> None:
    assert [allocate(10, {"b": 0.25}).count("b"), allocate(10, {"b": 0.35}).count("b")] == [2, 4]


@given(st.lists(calls | st.builds(Repeat, calls, counts) | nested, min_size=1, max_size=3))
def test_calls_print_as_they_were_written(items: list[Call | Repeat | Layout]) -> None:
    layout = Layout(tuple(items))
    text = str(layout)
    assert parse(text) == layout
    assert str(parse(text)) == text
    assert parse(text.replace(", ", " ,  ").replace("=", " = ")) == layout
    once = [item.item.words() * item.count if isinstance(item, Repeat) else item.words() for item in items]
    assert layout.words() == [word for words in once for word in words]


SAYS = "a call says how many blocks, then shares, as in allocate(56, attention=.08, mlp=.5)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((f"a allocate({inside}", f"layout 'a allocate({inside}', at character 3: {SAYS}")
          for inside in ("56", "b c)", ")", "5,)", "5, b c=.5)", "5, b=.5, b=.5)", "5, b=-1)", "5, b=1e-3)", "b, 5)")),
        ("allocate(0)", "allocate: a number of blocks is 1 to 4096, got 0"),
        ("allocate(4097)", "allocate: a number of blocks is 1 to 4096, got 4097"),
        ("allocate(4, b=.9, c=.9)", "allocate: 4 b and 4 c are more than 4 blocks"),
        ("allocate(4, b=2)", "allocate: at most two words beside 'mamba2' have shares, of 0 to 1; got {'b': 2.0}"),
        ("allocate(4, b, b=.5)", "allocate: at most two words beside 'b' have shares, of 0 to 1; got {'b': 0.5}"),
        ("allocate(4)*2*", "layout 'allocate(4)*2*', at character 14: expected a name, '(' , ')' or '*' with a count"),
    ],
)  # fmt: skip
def test_what_is_no_call_is_shown_where(text: str, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        parse(text)
    assert str(caught.value) == message


def test_a_block_may_be_called_allocate() -> None:
    assert parse("allocate (b c) allocate*2").words() == ["allocate", "b", "c", "allocate", "allocate"]
