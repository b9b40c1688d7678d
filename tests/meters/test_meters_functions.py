"""The registry: every example runs, every record is whole."""

import json
from decimal import Decimal

import pytest
from meters_reading import read, result

from gatekeeper.meters import FUNCTIONS, Context, Mark, check_expression
from gatekeeper.meters.evidence import plain_json

EXAMPLES = [(function.name, example) for function in FUNCTIONS for example in function.examples]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example.expression for _, example in EXAMPLES])
def test_an_example_of_the_registry_gives_what_it_says(name, example):
    body = (example.body or "").encode()
    reading = read(example.expression, body, example.content_type)
    assert reading.source is not Mark.ERROR, reading.note
    assert result(reading) == plain_json(json.loads(example.result, parse_float=Decimal))
    assert name in example.expression


def test_names_are_in_order_and_unique():
    names = [function.name for function in FUNCTIONS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_a_record_is_whole(function):
    assert function.signature.startswith(f"{function.name}(")
    assert function.sentence.endswith(".")
    assert function.examples


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_a_call_without_arguments_is_refused_with_the_signature(function):
    _, mistakes = check_expression(f"{function.name}()", context=Context.TRIAL)
    if function.least == 0:
        assert not mistakes
    else:
        assert mistakes[0].message.startswith(f"{function.name}() takes ")
        assert function.signature in (mistakes[0].hint or "")
