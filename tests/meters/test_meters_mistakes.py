"""The gallery: each mistakes/*.txt holds an expression, a line of dashes, and the exact text that its author gets.

Read the files to judge our manners. A changed message is changed there by hand, after reading it.
"""

from pathlib import Path

import pytest

from gatekeeper.diagnostics import Mistakes, Severity, Source
from gatekeeper.meters import check_expression, compile_meter

GALLERY = sorted((Path(__file__).parent / "mistakes").glob("*.txt"))


@pytest.mark.parametrize("file", GALLERY, ids=lambda file: file.stem)
def test_a_mistake_is_answered_with_exactly_this_message(file):
    expression, _, expected = file.read_text("utf-8").partition("\n----\n")
    meter, mistakes = check_expression(expression)
    assert "\n\n".join(mistake.render() for mistake in mistakes) + "\n" == expected
    assert (meter is None) == any(mistake.severity is Severity.ERROR for mistake in mistakes)


def test_the_gallery_is_not_empty():
    assert len(GALLERY) >= 40


def test_a_mistake_stands_in_the_source_that_was_given():
    _, mistakes = check_expression("usge()", source=Source("usge()", "gateway.toml"))
    assert mistakes[0].render().startswith("gateway.toml:1:1: error: ")
    outer = Source('[[routes]]\nmeter = "usge()"\n', "gateway.toml")
    meter, mistakes = check_expression("usge()", source=outer)
    assert meter is None
    assert mistakes[0].render().startswith("gateway.toml:2:10: error: ")


def test_compiling_raises_all_errors_and_no_warnings():
    with pytest.raises(Mistakes) as raised:
        compile_meter("let x = 1; usge() + stauts")
    assert [mistake.severity for mistake in raised.value.mistakes] == [Severity.ERROR] * 2


def test_a_warning_leaves_the_meter_and_stands_on_it():
    meter, mistakes = check_expression("usage().total == null ? 1 : usage().total")
    assert meter is not None
    assert meter.warnings == mistakes
    assert "marked 'default'" in mistakes[0].message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1" + " " * 4096, "has 4097 bytes; at most 4096"),
        ("+".join(["1"] * 260), "has 519 parts; at most 500"),
        ("-" * 51 + "1", "is nested 52 deep; at most 50"),
        ("(" * 2000 + "1" + ")" * 2000, "deep; at most 50"),
        ("[" * 2000, "is not closed"),
        ("a." * 2000 + "b", "parts; at most 500"),
        ("1" + "+1" * 1000, "parts; at most 500"),
    ],
)
def test_a_bound_is_a_mistake_and_never_a_crash(text, message):
    meter, mistakes = check_expression(text)
    assert meter is None
    assert message in mistakes[0].message


def test_a_tree_at_the_bounds_is_still_compiled():
    assert check_expression("-" * 48 + "1")[0] is not None
    assert check_expression("1" + " + 1" * 48)[0] is not None
