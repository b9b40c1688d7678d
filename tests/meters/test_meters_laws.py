"""The Laws of the metering language, as properties (design notes: README of the language)."""

import json
from decimal import Decimal

from fakes.effort import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from meters_naive import Answer, Naive
from meters_reading import pieces, read, result
from meters_strategies import EXPRESSIONS, REQUESTS, SIZES, answers

from gatekeeper.diagnostics import Source
from gatekeeper.meters import Context, Mark, Metering, Outcome, RequestView, check_expression, compile_meter
from gatekeeper.meters.parse import parse
from gatekeeper.meters.printing import printed


def legal(text):
    """The meter of a random expression, or a discarded example."""
    meter, _ = check_expression(text, context=Context.TRIAL)
    assume(meter is not None)
    return meter


@examples(100)
@given(EXPRESSIONS, answers(), REQUESTS, SIZES)
def test_law_1_chunking_never_changes_a_bill(text, answer, request, sizes):
    legal(text)
    body, content_type = answer
    reading = read(text, body, content_type, sizes=sizes, request=request)
    whole = read(text, body, content_type, request=request)
    assert (reading.units, reading.source, reading.value, reading.note) == (
        whole.units, whole.source, whole.value, whole.note,
    )  # fmt: skip
    value, source = Naive(text, request, Answer(body, content_type)).reading()
    assert (result(reading), reading.source) == (value, source), reading.note


@examples(70)
@given(EXPRESSIONS, answers(), REQUESTS)
def test_law_7_the_prefilter_changes_nothing(text, answer, request):
    legal(text)
    body, content_type = answer
    assert read(text, body, content_type, request=request) == read(
        text, body, content_type, request=request, prefilter=False
    )


@examples(70)
@given(EXPRESSIONS, answers(), REQUESTS)
def test_law_5_stored_evidence_gives_the_same_digits(text, answer, request):
    meter = legal(text)
    body, content_type = answer
    reading = read(text, body, content_type, request=request)
    stored = json.loads(json.dumps(reading.evidence))
    again = meter.replay(stored)
    assert (again.units, again.source, again.value, again.note) == (
        reading.units, reading.source, reading.value, reading.note,
    )  # fmt: skip


@examples(70)
@given(st.text(max_size=60) | EXPRESSIONS | st.text("()[]{}#.?:|&!=<>+-*/%,;'\"`x1 \n", max_size=40))
def test_law_3_any_text_is_a_meter_or_a_mistake_with_its_place(text):
    for context in Context:
        meter, mistakes = check_expression(text, context=context)
        assert meter is not None or mistakes
        for mistake in mistakes:
            assert 0 <= mistake.span.start <= mistake.span.end <= len(text)
            assert mistake.render()


@examples(70)
@given(
    st.lists(EXPRESSIONS, max_size=3),
    st.lists(st.binary(max_size=40), max_size=6),
    st.sampled_from(
        ["text/event-stream", "application/json", "application/x-ndjson", "", "audio/mpeg", "\ud800", ";;"]
    ),
    st.sampled_from(["", "gzip", "br", "zstd", "nonsense", "gzip, br"]),
    st.sampled_from(list(Outcome)),
)
def test_law_3_metering_never_raises(texts, chunks, content_type, encoding, outcome):
    meters = {str(n): compile_meter(t, context=Context.TRIAL) for n, t in enumerate(texts) if is_legal(t)}
    metering = Metering(meters, RequestView(body=b"\xff{"))
    metering.begin(200, content_type, encoding, {})
    for chunk in chunks:
        metering.feed(chunk)
        metering.usage_so_far()
    readings = metering.finish(outcome)
    assert readings.keys() == meters.keys()
    assert all(not (reading.note or "").startswith("internal") for reading in readings.values()), readings
    assert metering.finish(outcome) == readings
    metering.feed(b"late")


def is_legal(text):
    """Whether the checker takes it."""
    return check_expression(text, context=Context.TRIAL)[0] is not None


@examples(70)
@given(EXPRESSIONS)
def test_what_is_printed_is_read_as_the_same_tree(text):
    root, _ = parse(Source(text))
    assume(root is not None)
    again, mistakes = parse(Source(printed(root)))
    assert again == root, (printed(root), mistakes)
    assert printed(again) == printed(root)


@examples(70)
@given(EXPRESSIONS, answers(), REQUESTS)
def test_law_4_a_reading_is_a_rounded_number_that_is_never_negative(text, answer, request):
    meter, _ = check_expression(text)
    assume(meter is not None)
    reading = read(text, *answer, request=request, context=Context.METER)
    if reading.units is None:
        assert reading.source in (Mark.NONE, Mark.ERROR)
        return
    assert 0 <= reading.units <= 10**12
    assert reading.units == reading.units.quantize(Decimal("0.000001"))
    assert reading.source not in (Mark.NONE, Mark.ERROR)


def test_pieces_are_the_whole_again():
    assert b"".join(pieces(b"abcdefg", [2, 3])) == b"abcdefg"
