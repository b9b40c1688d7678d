"""Law 2 and Law 3, counted: memory by the size of what slots hold, time by the calls that are made. And Law 6: what the
checker takes has no type error on inputs of those types. And no error of ours is swallowed in silence."""

import json
import logging
import sys
from decimal import Decimal
from types import FrameType
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from meters_reading import SSE, read, sse
from meters_strategies import EXPRESSIONS, PAYLOADS, REQUESTS

from gatekeeper.meters import Context, Mark, Meter, Metering, Outcome, RequestView, check_expression, compile_meter
from gatekeeper.meters.folds import AtBack
from gatekeeper.meters.lines import LineCutter
from gatekeeper.meters.slots import BodyText, Feed, SlotPlan
from gatekeeper.meters.values import HELD_BYTES_MAX, HELD_KEYS_MAX, Unmeasurable, weight
from gatekeeper.wire.events import Event
from gatekeeper.wire.memory import PROCESS, EventMemory

# Calls for all that does not grow with the stream.
FREE_CALLS = 2000


def calls_for(meter: Meter, body: bytes, request: RequestView) -> int:
    """How many calls it takes, of Python and of C: the same on every machine."""
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        metering = Metering({"m": meter}, request)
        metering.begin(200, SSE, "", {})
        metering.feed(body)
        metering.finish(Outcome.COMPLETE)
    finally:
        sys.setprofile(None)
    return count


@examples(25)
@given(EXPRESSIONS, st.lists(PAYLOADS, min_size=1, max_size=4), REQUESTS)
def test_law_3_the_work_is_linear_in_the_events(text, payloads, request):
    meter, _ = check_expression(text, context=Context.TRIAL)
    assume(meter is not None)
    block = b"".join(b"data: " + payload.encode("utf-8", "replace") + b"\n\n" for payload in payloads)
    calls_for(meter, block, request)
    one, two, four = (calls_for(meter, block * times, request) for times in (20, 40, 80))
    assert four - two <= 2.2 * (two - one) + FREE_CALLS, (one, two, four)


def held_bytes(value: Any, seen: set[int]) -> int:
    """Everything that can be reached from a value, but code and modules."""
    if id(value) in seen or callable(value) or value is None:
        return 0
    seen.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(held_bytes(part, seen) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return size + sum(held_bytes(part, seen) for part in value)
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return size + sum(held_bytes(getattr(value, name, None), seen) for name in names)


LARGE = st.sampled_from(
    [
        {"n": 1, "x": [{"n": number} for number in range(400)]},
        {"usage": {f"k{number}": number for number in range(300)}, "n": 2},
        {"usage": {"a": "v" * 20_000}, "n": "w" * 20_000},
        {"usage": {"n": 3, "total_tokens": 4}, "message": {"usage": {"n": 5}}, "n": "é" * 9000},
        {"usage": {f"{number}": "y" * 60 for number in range(250)}},
    ]
)


@examples(60)
@given(EXPRESSIONS, st.lists(LARGE, min_size=1, max_size=5))
def test_law_2_a_slot_holds_little_whatever_passes(text, payloads):
    meter, _ = check_expression(text, context=Context.TRIAL)
    assume(meter is not None)
    metering = Metering({"m": meter}, RequestView())
    metering.begin(200, SSE, "", {})
    for _ in range(4):
        metering.feed(b"".join(f"data: {json.dumps(payload)}\n\n".encode() for payload in payloads))
    for slot in metering._runs["m"].slots:
        # Python's own boxes around 16 KiB and 256 keys of JSON: a dictionary costs some 100 bytes a key.
        assert held_bytes(slot.fold, set()) <= HELD_BYTES_MAX * 4 + 256 * 200, slot.plan.key
        assert slot.error is not None or not any(isinstance(place, Event) for place in slot.run.frame[1:])


SIZES = st.sampled_from([0, 40, 3000, 5400, 8100, 16_300, 16_500])


@examples(100)
@given(st.integers(1, 16), st.lists(st.tuples(SIZES, st.sampled_from([1, 100, 200, 300])), max_size=40))
def test_law_2_all_places_from_the_back_have_the_room_of_one_slot_together(place, items):
    fold = AtBack(place)
    for number, (size, keys) in enumerate(items):
        value = number if not size else {f"{key}": "x" * (size // keys) for key in range(keys)}
        fold.add(value, 1)
        held = [getattr(kept, "value", kept) for kept, _ in fold._ring]
        weights = [weight(kept) for kept in held if isinstance(kept, dict)]
        assert all(each is not None for each in weights)
        assert sum(size for size, _ in weights) <= HELD_BYTES_MAX
        assert sum(keys for _, keys in weights) <= HELD_KEYS_MAX
    if len(items) >= place and not items[-place][0]:
        assert fold.result() == (len(items) - place, 1)


def test_law_2_what_does_not_fit_into_a_slot_is_an_error_where_it_is_asked_for():
    def body(sizes):
        return sse(*(json.dumps({"n": number, "t": "x" * size}) for number, size in enumerate(sizes)))

    # The path is walked where the event passes: only its result is held.
    assert read("len(events[-4].data)", body([3000] * 9)).units == 3017
    assert read("events[-2]", body([9000] * 2)).source is Mark.MEASURED
    found = read("events[-2]", body([9000] * 3))
    assert found.source is Mark.ERROR
    assert "16 KiB" in found.note
    # Small ones behind large ones: what is asked for fits.
    assert read("events[-2]", body([9000, 9000, 9000, 10, 10])).source is Mark.MEASURED


def test_law_2_only_a_route_that_says_so_holds_the_body():
    meter = compile_meter("len(upper(allData))", buffer_bytes_max=100)
    assert isinstance(meter.plans[0].fold(), BodyText)
    reading = read("len(upper(allData))", b"x" * 101, "text/plain", buffer_bytes_max=100)
    assert (reading.source, reading.note) == (Mark.ERROR, "the body is larger than buffer_bytes_max (100)")
    assert check_expression("len(upper(allData))")[0] is None


def test_lines_and_bodies_that_are_held_count_for_the_process():
    memory = EventMemory(100_000)
    first, second = LineCutter(1 << 20, memory=memory), LineCutter(1 << 20, memory=memory)
    for cutter in (first, second):
        assert cutter.feed(b"a" * 60_000) == []
    assert (first.dropped, second.dropped) == (0, 1)
    assert 50_000 < memory.used <= 100_000
    assert second.feed(b"a" * 90_000 + b"\nnext\n") == ["next"]
    assert [len(line) for line in first.feed(b"\n") + first.finish()] == [60_000]
    assert memory.used == 0
    kept, other = BodyText(1 << 20, memory=memory), BodyText(1 << 20, memory=memory)
    kept.add(b"b" * 60_000, 1)
    with pytest.raises(Unmeasurable, match="too much for memory"):
        other.add(b"b" * 60_000, 1)
    assert 50_000 < memory.used <= 60_000
    assert kept.result() == ("b" * 60_000, 1)
    del kept, other
    assert memory.used == 0


@pytest.mark.parametrize("text", ["len(upper(allData))", "count(lines(allData))"])
def test_a_body_or_a_line_that_the_process_has_no_room_for_is_an_error_and_no_charge_of_nothing(text):
    used = PROCESS.used
    room = PROCESS.bytes_max - used - 4096
    assert PROCESS.moved(0, room)
    try:
        reading = read(text, b"x" * 50_000, "text/plain", sizes=[1000] * 50, buffer_bytes_max=1 << 20)
    finally:
        PROCESS.moved(room, 0)
    assert (reading.source, reading.units) == (Mark.ERROR, None)
    assert "too much for memory" in reading.note
    assert PROCESS.used == used


# -- types ---------------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(
    ["0", "1", "2.5", "count(events)", "usage().total", "usage().input", "requestBytes", "responseBytes", "durationMs",
     "status", "count(events, .event == 'a')", "last(events, len(.data))", "events[0].index", "len(model)",
     "toInt(model)", "toFloat(sseLastData(allData))", "sum([1, 2, null])", "sum(1..3, # * 2)", "len(lines(allData))",
     "max(events, len(.data))", "tokens(path)", "usage().cached_input", "firstByteMs"]
)  # fmt: skip
TEXTS = st.sampled_from(
    ["'a'", "''", "model", "path", "last(events, .data)", "events[-1].event", "sseLastData(allData)", "outcome",
     "toString(status)", "headers['x-a']", "jsonEncode([1])", "last(lines(allData))", "contentType", "sha256(allData)"]
)  # fmt: skip
TESTS = st.sampled_from(
    ["true", "any(events, .event == 'a')", "all(events, .index >= 0)", "status == 200", "allData contains 'a'",
     "has(headers, 'x-a')", "usage().output_placeholder"]
)  # fmt: skip


def typed(depth: int) -> tuple[st.SearchStrategy[str], st.SearchStrategy[str], st.SearchStrategy[str]]:
    """Numbers, texts and tests of which every part has a type that is known."""
    if depth == 0:
        return NUMBERS, TEXTS, TESTS
    number, text, test = typed(depth - 1)
    signs = st.sampled_from(["+", "-", "*", "/", "%", "??"])
    numbers = st.one_of(
        NUMBERS,
        st.builds("({}) {} ({})".format, number, signs, number),
        st.builds("{}({})".format, st.sampled_from(["abs", "ceil", "floor", "round", "-"]), number),
        st.builds("({}) ? ({}) : ({})".format, test, number, number),
        st.builds("max({}, {})".format, number, number),
        st.builds("len({})".format, text),
        st.builds("toInt({})".format, text),
        st.builds("sum([{}, {}])".format, number, number),
        st.builds(f"let v{depth} = ({{}}); v{depth} * ({{}})".format, number, number),
    )
    texts = st.one_of(
        TEXTS,
        st.builds("({}) + ({})".format, text, text),
        st.builds("{}({})".format, st.sampled_from(["upper", "lower", "trim", "sha256", "urlEncode"]), text),
        st.builds("toString({})".format, number),
        st.builds("({}) ?? ({})".format, text, text),
        st.builds("replace({}, 'a', {})".format, text, text),
        st.builds("join(split({}, ','), {})".format, text, text),
    )
    compares = st.sampled_from(["==", "!=", "<", ">="])
    tests = st.one_of(
        TESTS,
        st.builds("({}) {} ({})".format, number, compares, number),
        st.builds("({}) {} ({})".format, text, compares, text),
        st.builds("({}) {} ({})".format, test, st.sampled_from(["&&", "||"]), test),
        st.builds("not ({})".format, test),
        st.builds("({}) in [{}, {}]".format, number, number, number),
        st.builds("({}) {} ({})".format, text, st.sampled_from(["contains", "startsWith", "endsWith"]), text),
    )
    return numbers, texts, tests


# What a value, not a type, can do to a calculation.
OF_VALUES = (
    "division by zero", "a number is larger", "a number has more", "a number is smaller", "a result needs",
    "the result is larger", "a string grew", "a result is not a number",
)  # fmt: skip


@examples(120)
@given(st.one_of(*typed(2)), st.lists(PAYLOADS, max_size=4))
def test_law_6_what_the_checker_takes_has_no_type_error_on_inputs_of_those_types(text, payloads):
    meter, mistakes = check_expression(text, context=Context.TRIAL)
    if meter is None:
        # A zero that is written down is no type, but is seen all the same.
        assert {mistake.message for mistake in mistakes if mistake.severity == "error"} == {"division by zero"}, text
        return
    view = RequestView(model="gpt-4o", path="/v1/a", headers={"x-a": "b"}, request_bytes=12)
    body = sse(*payloads) if payloads else b""
    reading = read(text, body, request=view)
    if reading.source is Mark.ERROR:
        assert (reading.note or "").startswith(OF_VALUES), (text, reading.note)
    else:
        assert isinstance(reading.units, Decimal | None)


# -- errors of ours ------------------------------------------------------------------------------------------------


def broken(*_: Any) -> Any:
    """What should never be."""
    raise AssertionError("this is ours")


def meter_of(code: Any, plans: tuple[SlotPlan, ...] = (), context: Context = Context.METER) -> Meter:
    root = compile_meter("1")._root
    return Meter("broken()", root, code, plans, 3, context, (), buffered=False)


def plan_of(**how: Any) -> SlotPlan:
    plan = {"key": "k", "shown": "k", "feed": Feed.EVENTS, "fold": compile_meter("count(events)").plans[0].fold}
    return SlotPlan(**{**plan, "shared": False, "place": 1, **how})


@pytest.mark.parametrize(
    ("meter", "chunk"),
    [
        (meter_of(broken), b""),
        (meter_of(lambda run: run.slots[0].result(), (plan_of(code=broken),)), b"data: 1\n\n"),
        (meter_of(lambda run: (1, 1), (plan_of(fold=broken),)), b""),
        (meter_of(lambda run: run.slots[0].result(), (plan_of(feed=Feed.BODY, fold=lambda: Odd()),)), b"data: 1\n\n"),
    ],
    ids=["the code", "a slot", "the opening", "a fold of bytes"],
)
def test_an_assertion_is_an_error_that_is_named_and_logged(meter, chunk, caplog):
    with caplog.at_level(logging.ERROR, "gatekeeper.meters"):
        metering = Metering({"m": meter}, RequestView())
        metering.begin(200, SSE, "", {})
        metering.feed(chunk)
        reading = metering.finish(Outcome.COMPLETE)["m"]
    assert (reading.source, reading.units, reading.note) == (Mark.ERROR, None, "internal: AssertionError")
    assert "this is ours" in caplog.text
    assert "Traceback" in caplog.text


class Odd:
    """A fold that is broken."""

    done = False

    def add(self, value: Any, marks: int) -> None:
        broken()

    def result(self) -> Any:
        return None, 0


def test_an_assertion_in_a_value_is_null_and_logged(caplog):
    with caplog.at_level(logging.ERROR, "gatekeeper.meters"):
        assert meter_of(broken, context=Context.VALUE).evaluate_value(RequestView()) is None
    assert "this is ours" in caplog.text
    caplog.clear()
    value = compile_meter("1 / requestBytes", context=Context.VALUE)
    assert value.evaluate_value(RequestView()) is None
    assert caplog.text == ""
