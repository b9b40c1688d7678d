"""Conformance: every case of spec/*.toml, read in one piece and byte by byte, and by the naive evaluator.

A case is [expression, expectation]. The expectation is JSON (a fraction stands as its digits) with the source after it
where it is not ``measured``; ``none``; ``error: part of the note``; or ``mistake: part of the message``.
"""

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from meters_naive import Answer, Naive
from meters_reading import SSE, read, result, sse

from gatekeeper.meters import Context, Mark, RequestView, check_expression, compile_meter
from gatekeeper.meters.evidence import plain_json

FILES = sorted((Path(__file__).parent / "spec").glob("*.toml"))
SOURCES = ("default", "estimated")


def cases() -> list[Any]:
    """(group, expression, expectation), named by file and group."""
    found = []
    for file in FILES:
        for group in tomllib.loads(file.read_text("utf-8"))["group"]:
            for expression, expected in group["cases"]:
                name = f"{file.stem}/{group['name']}: {expression}"
                found.append(pytest.param(group, expression, expected, id=name))
    return found


CASES = cases()


def expectation(text: str) -> tuple[Any, Mark]:
    """(value, source) of an expectation that is neither an error nor a mistake."""
    if text == "none":
        return None, Mark.NONE
    source = next((word for word in SOURCES if text.endswith(f" {word}")), "")
    value = json.loads(text.removesuffix(source), parse_float=Decimal)
    return plain_json(value), Mark(source or "measured")


def whole(group: dict[str, Any]) -> tuple[bytes, str, RequestView]:
    """(body, content type, request) of a group."""
    body = sse(*group["stream"]) if "stream" in group else group.get("body", "").lstrip("\n").encode()
    request = group.get("request")
    view = RequestView(body=None if request is None else request.encode(), model="gpt-4o")
    return body, group.get("content_type", SSE), view


@pytest.mark.parametrize(("group", "expression", "expected"), CASES)
def test_a_case_gives_what_it_says(group, expression, expected):
    context = Context(group.get("context", "trial"))
    body, content_type, view = whole(group)
    if expected.startswith("mistake: "):
        meter, mistakes = check_expression(expression, context=context)
        assert meter is None
        assert any(expected[9:] in mistake.message for mistake in mistakes), [one.render() for one in mistakes]
        return
    if context in (Context.ESTIMATE, Context.WHEN):
        readings = [compile_meter(expression, context=context).evaluate_request(view)]
    else:
        how = {"request": view, "context": context}
        readings = [read(expression, body, content_type, sizes=sizes, **how) for sizes in ([], [1], [7, 3])]
    for reading in readings:
        if expected.startswith("error: "):
            assert reading.source is Mark.ERROR
            assert expected[7:] in (reading.note or "")
            continue
        assert reading.source is not Mark.ERROR, reading.note
        found = plain_json(reading.units) if context is not Context.TRIAL else result(reading)
        assert (found, reading.source) == expectation(expected)


@pytest.mark.parametrize(
    ("group", "expression", "expected"), [case for case in CASES if "context" not in case.values[0]]
)
def test_the_naive_evaluator_says_the_same(group, expression, expected):
    if expected.startswith("mistake: "):
        return
    if "1..200" in expression:
        return  # the bound on work is the compiler's alone
    body, content_type, view = whole(group)
    value, source = Naive(expression, view, Answer(body, content_type)).reading()
    if expected.startswith("error: "):
        assert source in (Mark.ERROR, Mark.MEASURED)  # a bound of the reading's own, such as a string too long
        return
    assert (value, source) == expectation(expected)


def test_there_are_enough_cases():
    assert len(CASES) >= 400
