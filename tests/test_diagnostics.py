"""A Mistake shows file, line, column, the line itself with a caret, and what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.diagnostics import Mistake, Mistakes, Severity, Source, Span, suggest

TEXT = Source("first = 1\n\tsecond = tow\nthird", "gateway.toml")


def test_a_mistake_is_shown_with_place_line_caret_and_hint() -> None:
    mistake = Mistake("unknown word 'tow'", TEXT, Span(20, 23), "did you mean 'two'?")
    assert mistake.render() == (
        "gateway.toml:2:11: error: unknown word 'tow'\n  \tsecond = tow\n  \t         ^^^\n  hint: did you mean 'two'?"
    )


def test_a_warning_says_that_it_is_one_and_a_hint_is_optional() -> None:
    mistake = Mistake("odd", Source("abc"), Span(1, 2), severity=Severity.WARNING)
    assert mistake.render() == "<expression>:1:2: warning: odd\n  abc\n   ^"


@pytest.mark.parametrize(
    ("span", "place", "caret"),
    [
        (Span(0, 0), (1, 1), "^"),
        (Span(0, 999), (1, 1), "^^^^^^^^^"),
        (Span(9, 10), (1, 10), "         ^"),
        (Span(29, 29), (3, 6), "     ^"),
        (Span(500, 501), (3, 6), "     ^"),
    ],
)
def test_the_caret_stays_on_its_line_and_has_a_width(span: Span, place: tuple[int, int], caret: str) -> None:
    mistake = Mistake("x", TEXT, span)
    assert (mistake.line, mistake.column) == place
    assert mistake.render().split("\n")[2] == f"  {caret}"


def test_columns_count_characters_and_lines_end_before_a_carriage_return() -> None:
    source = Source("é😀x\r\ny")
    mistake = Mistake("m", source, Span(2, 3))
    assert (mistake.line, mistake.column) == (1, 3)
    assert mistake.render().split("\n")[1] == "  é😀x"
    assert source.line(2) == "y"
    assert source.line(0) == source.line(3) == ""


def test_a_mistake_of_an_expression_moves_into_the_file_that_holds_it() -> None:
    outer = Source('meter = "usage().totl"', "gateway.toml")
    moved = Mistake("no field 'totl'", Source("usage().totl"), Span(8, 12), "total").moved(outer, 9)
    assert moved.render().startswith("gateway.toml:1:18: error: no field 'totl'")
    assert moved.render().split("\n")[2].index("^") - 2 == outer.text.index("totl")


def test_all_mistakes_are_said_at_once_and_there_is_at_least_one() -> None:
    both = Mistakes([Mistake("one", TEXT, Span(0, 1)), Mistake("two", TEXT, Span(1, 2))])
    assert str(both) == f"{both.mistakes[0].render()}\n\n{both.mistakes[1].render()}"
    with pytest.raises(AssertionError):
        Mistakes([])


def test_the_nearest_word_is_suggested_in_its_own_spelling_and_nothing_far() -> None:
    assert suggest("totl", ["total", "input"]) == "did you mean 'total'?"
    assert suggest("USERID", ["userID"]) == "did you mean 'userID'?"
    assert suggest("zzz", ["total"]) is None
    assert suggest("x", []) is None


@given(st.text(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_any_place_in_any_text_can_be_shown(text: str, start: int, length: int) -> None:
    mistake = Mistake("m", Source(text), Span(start, start + length))
    line, column = mistake.line, mistake.column
    assert 1 <= line <= text.count("\n") + 1
    assert 1 <= column <= len(text) + 1
    assert "^" in mistake.render()


@given(st.text(alphabet="ab\n", max_size=40), st.integers(0, 40))
def test_line_and_column_lead_back_to_the_offset(text: str, offset: int) -> None:
    line, column = Source(text).position(offset)
    before = text.split("\n")[: line - 1]
    assert sum(len(each) + 1 for each in before) + column - 1 == min(offset, len(text))
