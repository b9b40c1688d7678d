"""The gallery: each mistakes/*.txt holds an expression, a line of dashes, and the exact text that its author gets.

Read the files to judge our manners. A changed message is changed there by hand, after reading it. What follows ``__``
in a file's name is the dialect that the route's provider speaks.
"""

from pathlib import Path

import pytest

from gatekeeper.diagnostics import Mistakes, Severity, Source
from gatekeeper.meters import Context, check_expression, compile_meter

GALLERY = sorted((Path(__file__).parent / "mistakes").glob("*.txt"))


@pytest.mark.parametrize("file", GALLERY, ids=lambda file: file.stem)
def test_a_mistake_is_answered_with_exactly_this_message(file):
    expression, _, expected = file.read_text("utf-8").partition("\n----\n")
    meter, mistakes = check_expression(expression, dialect=file.stem.partition("__")[2] or None)
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


SHIPPED = ("usage().total", "usage()", "len(response.data)")
FAIR = (
    *SHIPPED,
    "usage().input + usage().output * 4",
    "let u = usage(); u.input - (u.cached_input ?? 0) + (u.cached_input ?? 0) / 10 + u.output * 4",
    "last(events, .json.usage.total_tokens) ?? usage().total",
    "last(events, .json.usage.total_tokens) ?? null",
    "usage().requests",
    "usage().seconds",
    "count(events, .json.type == 'image')",
    "requestBytes / 4",
    "1",
    "usage().total ?? (requestBytes / 4)",
    "sum(events, .json.seconds) ?? null",
)


@pytest.mark.parametrize("dialect", [None, "openai", "anthropic", "gemini"])
@pytest.mark.parametrize("text", SHIPPED)
def test_a_shipped_expression_has_no_warning(text, dialect):
    assert check_expression(text, dialect=dialect)[1] == ()


@pytest.mark.parametrize("text", FAIR)
def test_an_expression_that_says_what_it_means_has_no_warning(text):
    _, mistakes = check_expression(text)
    assert [mistake.render() for mistake in mistakes] == []


@pytest.mark.parametrize("dialect", [None, "openai"])
def test_the_headline_warns_once_of_its_constant(dialect):
    meter, mistakes = check_expression("json(sseLastData(allData)).usage.total_tokens ?? 1", dialect=dialect)
    assert meter is not None
    assert [mistake.severity for mistake in mistakes] == [Severity.WARNING]
    assert "this constant is charged" in mistakes[0].message


@pytest.mark.parametrize("context", [Context.ESTIMATE, Context.WHEN, Context.VALUE, Context.TRIAL, Context.LIVE])
def test_nulls_and_constants_are_warned_of_only_where_they_are_billed(context):
    for text in ("model == null ? 1 : 2", "requestBytes ?? 1", "request.n ?? 1", "last(events, .json.usage.n)"):
        _, mistakes = check_expression(text, context=context)
        assert not any("there is no default" in mistake.message for mistake in mistakes)
    assert not check_expression("request.max_tokens ?? 1", context=Context.ESTIMATE)[1]


def test_xai_leaves_reasoning_out_of_the_completion_so_adding_it_is_right():
    text = "let u = response.usage; (u.completion_tokens + u.completion_tokens_details.reasoning_tokens) ?? null"
    assert check_expression(text, dialect="xai")[1] == ()
    assert "counts it twice" in check_expression(text)[1][0].message


@pytest.mark.parametrize(
    "text",
    [
        "usage().total ?? 1", "coalesce(usage().total, 1)", "default(usage().total, 1)", "max(usage().total ?? 0, 1)",
        "(usage().input ?? 0) + (usage().output ?? 0)", "sum([usage().input ?? 0, usage().output])",
        "let t = usage().total ?? 1; t * 2", "model == 'a' ? usage().total ?? 1 : usage().total",
        "last(events, .json.n) ?? usage().total ?? 1", "sum(events, e => e.json.n ?? 0)", "-(usage().total ?? 1) * -1",
    ],
)  # fmt: skip
def test_a_constant_that_hides_a_miss_is_warned_of_wherever_it_stands(text):
    _, mistakes = check_expression(text)
    assert ["this constant is charged" in mistake.message for mistake in mistakes] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "(usage().input + usage().cached_input) ?? null", "(usage().total + usage().output) ?? null",
        "let u = usage(); (u.output * 4 + (u.reasoning ?? 0) * 4) ?? null",
        "sum([usage().total, usage().reasoning]) ?? null", "sum(1..2, x => usage().total + usage().input) ?? null",
        "(last(events, .json.usage.prompt_tokens) + last(events, .json.usage.prompt_tokens_details.cached_tokens))"
        " ?? null",
        "last(events, e => e.json.usageMetadata.totalTokenCount + e.json.usageMetadata.promptTokenCount) ?? null",
    ],
)  # fmt: skip
def test_a_part_beside_the_whole_that_holds_it_is_warned_of(text):
    _, mistakes = check_expression(text)
    assert [mistake.message.endswith("already: this counts it twice") for mistake in mistakes] == [True]
