"""``[[usage_shapes]]``: a provider that nobody has heard of, declared in a few lines."""

import pytest

from gatekeeper.cli.check import failed_examples
from gatekeeper.config import parse_gateway
from gatekeeper.diagnostics import Mistakes

PLANS = {"plans/free.toml": "monthly_price = 0\n"}
GATEWAY = """
[upstreams.acme]
url = "https://llm.acme.test"
[[routes]]
name = "acme"
path = "/acme/chat"
upstream = "acme"
[[routes.example]]
body = '{"kind": "usage", "bill": {"tokens": {"in": 3, "out": 4, "cached": 5}}}'
units = 12
"""
SHAPE = """
[[usage_shapes]]
name = "acme"
at = "bill.tokens | bill"
when = "kind = usage"
need = "in | out"
counts = { input = "in + cached", output = "out", cached_input = "cached" }
"""


def test_a_declared_shape_is_read_by_usage():
    without = parse_gateway(GATEWAY, "gateway.toml", PLANS, {})
    assert without.usage_shapes == ()
    assert len(failed_examples(without)) == 1
    gateway = parse_gateway(GATEWAY + SHAPE, "gateway.toml", PLANS, {})
    assert gateway.usage_shapes[0].name == "acme"
    assert failed_examples(gateway) == ()


def test_a_wrong_shape_is_a_mistake_at_its_table():
    with pytest.raises(Mistakes, match=r"no key 'count'.*did you mean 'counts'") as raised:
        parse_gateway(GATEWAY + SHAPE.replace("counts =", "count ="), "gateway.toml", PLANS, {})
    (mistake,) = raised.value.mistakes
    assert mistake.source.line(mistake.line) == "[[usage_shapes]]"


def test_an_expression_that_is_wrong_for_the_dialect_of_its_route_is_warned_of():
    meter = 'meter = "json(sseLastData(allData)).usage.total_tokens"\n'
    text = GATEWAY.split("[[routes.example]]", maxsplit=1)[0] + meter
    (plain,) = parse_gateway(text, "gateway.toml", PLANS, {}).warnings
    (anthropic,) = parse_gateway(text + 'dialect = "anthropic"\n', "gateway.toml", PLANS, {}).warnings
    assert "anthropic sends it in 'message_start'" in anthropic.message
    assert "anthropic" not in plain.message
