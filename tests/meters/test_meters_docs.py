"""The pages in docs/ say what is: every expression in them is executed, and the reference is made from the registry."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from meters_reading import read, result

from gatekeeper.meters import FUNCTIONS, NAMES, Context, Mark, Metering, Outcome, RequestView, check_expression
from gatekeeper.meters.evidence import plain_json
from gatekeeper.meters.kinds import USAGE_MEMBERS
from gatekeeper.meters.reference import REFERENCE, reference

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "expressions.md"
TEXT = GUIDE.read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"(?P<expression>.*?)\s*/\* (?P<expected>[^*]*) \*/")
[STREAM] = [body for kind, body in BLOCK.findall(TEXT) if kind == "sse"]
[BODY] = re.findall(r"^`(\{.*\})`\.$", TEXT, re.MULTILINE)
REQUEST = RequestView(model="gpt-4o", plan_id="pro", body=BODY.encode())
LINES = [line for kind, body in BLOCK.findall(TEXT) if kind == "meter" for line in body.splitlines()]
PLACES = [Context.ESTIMATE, Context.LIVE, Context.COST, Context.WHEN]
PLACED = [(place, line) for place in PLACES for kind, body in BLOCK.findall(TEXT) if kind == place
          for line in body.splitlines()]  # fmt: skip


class Prices:
    """The price of gpt-4o: $2.50 and $10 per million tokens."""

    def cost(self, model, usage, at_ms):
        return (usage["input"] * Decimal("2.5") + usage["output"] * 10) / 1_000_000 if model == "gpt-4o" else None


def test_the_reference_is_made_from_the_registry():
    assert REFERENCE.read_text("utf-8") == reference(), "run: python -m gatekeeper.meters.reference"
    for function in FUNCTIONS:
        assert f"`{function.signature}`" in reference().replace("\\|", "|")


def test_the_guide_has_examples():
    assert len(LINES) >= 40
    assert {kind for kind, _ in BLOCK.findall(TEXT)} == {"meter", "sse", "toml", "python", *PLACES}
    assert all(sum(place is each for each, _ in PLACED) >= 2 for place in PLACES)


@pytest.mark.parametrize("line", LINES)
def test_an_example_of_the_guide_gives_what_its_comment_says(line):
    found = LINE.fullmatch(line)
    assert found is not None, "an example ends in /* what it gives */"
    expression, expected = found["expression"], found["expected"]
    if expected.startswith("mistake: "):
        meter, mistakes = check_expression(line, context=Context.TRIAL)
        assert meter is None
        assert expected.removeprefix("mistake: ") in mistakes[0].message
        return
    reading = read(line, STREAM.encode() + b"\n", request=REQUEST)
    source = Mark.DEFAULT if expected.endswith(" default") else Mark.MEASURED
    value = json.loads(expected.removesuffix(" default"), parse_float=Decimal)
    assert result(reading) == plain_json(value), expression
    assert reading.source is (Mark.NONE if value is None else source)


@pytest.mark.parametrize(("place", "line"), PLACED)
def test_an_example_of_each_place_gives_there_what_its_comment_says(place, line):
    found = LINE.fullmatch(line)
    assert found is not None, "an example ends in /* what it gives */"
    expected = found["expected"]
    meter, mistakes = check_expression(line, context=place)
    if expected.startswith("mistake: "):
        assert meter is None
        assert expected.removeprefix("mistake: ") in mistakes[0].message
        return
    assert meter is not None, mistakes
    if place in (Context.ESTIMATE, Context.WHEN):
        units = meter.evaluate_request(REQUEST).units
    else:
        live = place is Context.LIVE
        metering = Metering({} if live else {"m": meter}, REQUEST, prices=Prices(), live=meter if live else None)
        metering.begin(200, "text/event-stream", "", {})
        metering.feed(STREAM.encode() + b"\n")
        readings = metering.finish(Outcome.COMPLETE)
        units = metering.live.units if live else readings["m"].units
    wanted = {"true": "1", "false": "0"}.get(expected, expected)
    assert units == (None if wanted == "null" else Decimal(wanted))


def test_the_guide_names_every_name_and_every_key_of_a_usage_record():
    assert [name for name in NAMES if f"`{name}`" not in TEXT] == []
    assert [name for name in USAGE_MEMBERS if f"`{name}`" not in TEXT] == []


WARNINGS = re.findall(r"^\| [^|]+ \| `([^`]+)` \| [^|]+\|$", TEXT.partition("## Warnings")[2], re.MULTILINE)


@pytest.mark.parametrize("expression", WARNINGS)
def test_an_example_of_a_warning_is_warned_of(expression):
    meter, mistakes = check_expression(expression, dialect="anthropic")
    assert meter is not None
    assert mistakes


def test_every_kind_of_warning_has_an_example():
    assert len(WARNINGS) == 6
