"""Usage shapes that a user declares in TOML: read with their mistakes told, and tried before the built-in ones."""

import json
import tomllib
from dataclasses import asdict
from typing import Any

import pytest

from gatekeeper.wire.events import Event
from gatekeeper.wire.shapes import COUNTS, SHAPES, Shape, shape_of
from gatekeeper.wire.usage import UsageFold

OWN = """
[[usage_shapes]]
name = "acme"
when = "kind = usage | summary"
at = "bill.tokens | bill"
need = "in | out"
keep = "fields"
first = "in"
zero = ["cached_input"]
billed = "units"
counts = { input = "in + cached", output = "out", cached_input = "cached", requests = "searches.0.n" }
"""


def declared(text: str = OWN) -> tuple[Shape, ...]:
    return tuple(shape_of(row) for row in tomllib.loads(text)["usage_shapes"])


def folded(shapes: tuple[Shape, ...], *events: Any, prefilter: bool = True) -> dict[str, Any] | None:
    fold = UsageFold(shapes, prefilter=prefilter)
    for index, event in enumerate(events):
        fold.feed(Event(index, "message", "", json.dumps(event).encode()))
    return fold.result()


@pytest.mark.parametrize("prefilter", [True, False])
def test_a_declared_shape_reads_a_provider_that_nobody_knows(prefilter: bool) -> None:
    events = [
        {"kind": "delta", "text": "hi"},
        {"kind": "usage", "bill": {"tokens": {"in": 10, "cached": 4, "out": 1}}},
        {"kind": "summary", "bill": {"in": 0, "out": 7, "searches": [{"n": 2}], "units": {"credits": 3}}},
        {"kind": "delta", "bill": {"in": 99, "out": 99}},
    ]
    assert folded((*declared(), *SHAPES), *events, prefilter=prefilter) == {
        "input": 14, "output": 7, "total": 21, "cached_input": 4, "requests": 2, "billed": {"credits": 3},
    }  # fmt: skip
    assert folded(SHAPES, *events) is None


def test_a_declared_shape_comes_before_the_built_in_ones_and_leaves_them_their_providers() -> None:
    own = declared('[[usage_shapes]]\nname = "half"\nat = "usage"\nwhen = "vendor = half"\n'
                   'counts = { input = "prompt_tokens" }')  # fmt: skip
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert folded((*own, *SHAPES), {"vendor": "half", "usage": usage}) == {"input": 10, "output": None, "total": 10}
    found = folded((*own, *SHAPES), {"usage": usage})
    assert found is not None and found["total"] == 15


def test_every_built_in_shape_could_be_declared() -> None:
    for shape in SHAPES:
        assert shape_of({key: value for key, value in asdict(shape).items() if value}) == shape


def test_only_what_a_record_holds_can_be_counted() -> None:
    assert {"input", "output", "total", "cached_input", "seconds", "requests"} <= set(COUNTS)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"name": "a"}, "'counts' of a usage shape is a table"),
        ({"counts": {"input": "a"}}, "'name' of a usage shape is a word"),
        ({"name": "a b", "counts": {"input": "a"}}, "'name' of a usage shape is a word"),
        ({"name": "a", "counts": {}}, "'counts' of a usage shape is a table"),
        ({"name": "a", "counts": {"imput": "a"}}, "counts no 'imput'; did you mean 'input'?"),
        ({"name": "a", "counts": {"input": 3}}, "'counts.input' is a path"),
        ({"name": "a", "counts": {"input": "a[0].b"}}, "'a[0].b' is no path; write a.b, a.0"),
        ({"name": "a", "counts": {"input": "a + + b"}}, "is no path"),
        ({"name": "a", "counts": {"input": "a..b"}}, "is no path"),
        ({"name": "a", "counts": {"input": "a"}, "whem": "x"}, "no key 'whem'; did you mean 'when'?"),
        ({"name": "a", "counts": {"input": "a"}, "keep": "first"}, "'keep' of a usage shape is one of 'last', 'field"),
        ({"name": "a", "counts": {"input": "a"}, "at": ["usage"]}, "'at' of a usage shape is a string"),
        ({"name": "a", "counts": {"input": "a"}, "at": "x" * 501}, "at most 500 characters"),
        ({"name": "a", "counts": {"input": "a"}, "zero": ["output"]}, "names that stand in its counts"),
        ({"name": "a", "counts": {"input": "a"}, "zero": "input"}, "names that stand in its counts"),
        ({"name": "a", "counts": {"input": "a"}, "when": "x == y"}, "'x == y' is no condition"),
        ({"name": "a", "counts": {"input": "a"}, "when": "= y"}, "is no condition"),
        ({"name": "a", "counts": {"input": "a"}, "first": "a"}, "goes with keep = 'fields'"),
        ({"name": "a", "counts": {"input": "a"}, "placeholder": "a"}, "go together"),
        ({"name": "a", "counts": {"input": "a"}, "rest": "more"}, "needs counts of input, output and total"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_refused_with_a_sentence(row: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        shape_of(row)
    assert sentence in str(refused.value)
