"""The layout language: printed as it was written, refused where it stops being one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formery.errors import BadSpec
from formery.layout import MOST_WORDS, Layout, Repeat, compress, parse

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
