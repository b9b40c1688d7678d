"""Law 3: whatever an expression does, it ends soon and takes little memory."""

import time

import pytest
from meters_reading import read, sse

from gatekeeper.meters import Context, Mark, RequestView, check_expression

LARGE = sse('{"t":"' + "ab" * 200_000 + '","n":1}')


def lets(first, step, count):
    """``let a0 = first; let a1 = step(a0); ...; an``."""
    parts = [f"let a0 = {first}; "]
    parts += [f"let a{n} = {step.replace('@', f'a{n - 1}')}; " for n in range(1, count)]
    return "".join(parts) + f"a{count - 1}"


@pytest.mark.parametrize(
    ("first", "step", "count"),
    [
        ("[1, 1]", "[@, @]", 45),
        ("{a: 1}", "{a: @, b: @}", 45),
        ("[1, 1]", "map(1..1000, x => @)", 20),
        ("'ab'", "@ + @", 45),
        ("'\"'", "jsonEncode(@)", 45),
        ("'abcdef'", "base64Encode(@)", 45),
        ("'aa'", "replace(@, 'a', @)", 40),
        ("'aa'", "join([@, @], @)", 40),
        ("request.x", "replace(@, @, @)", 40),
        ("request.x", "coalesce(@, @)", 40),
        ("request", "@.x.y.z", 45),
        ("response", "get(@, 'a')", 45),
        ("2", "@ * @", 45),
        ("1..1000", "map(@, x => len(@))", 3),
        ("1..1000", "filter(@, # in @)", 4),
        ("events", "filter(@, .json.n == 1)", 30),
        ("events", "filter(@, len(.data) > 1)", 45),
    ],
)
def test_variables_that_build_on_one_another_end_soon(first, step, count):
    text = lets(first, step, count)
    if first == "events":
        text = f"{text}[0].index"
    for wrapped in (text, text.rsplit(";", 1)[0] + f"; jsonEncode(a{count - 1}) == 'x' ? 1 : 2"):
        start = time.perf_counter()
        meter, _ = check_expression(wrapped, context=Context.TRIAL)
        if meter is not None:
            read(wrapped, LARGE, request=RequestView(body=b'{"x":"aaaa"}'))
        assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    "text",
    [
        "sum(1..1000, a => sum(1..1000, b => sum(1..1000, c => 1)))",
        "count(events, e => sum(1..1000, a => len(lower(e.data))) > 0)",
        "sum(1..1000, a => len(map(1..1000, b => upper('abc'))))",
        "sum(1..1000, a => count(1..1000, b => b in (1..1000)))",
    ],
)
def test_loops_in_loops_become_an_error_and_not_a_pause(text):
    start = time.perf_counter()
    meter, _ = check_expression(text, context=Context.TRIAL)
    assert meter is not None
    assert read(text, LARGE).source is Mark.ERROR
    assert time.perf_counter() - start < 3


def test_a_large_event_may_be_read_in_many_ways():
    assert (
        read("last(events, len(.json.t)) + len(sseLastData(allData)) + count(lines(allData))", LARGE).units == 800_016
    )


def test_a_pattern_runs_in_linear_time():
    body = sse('{"t":"' + "a" * 100_000 + '!"}')
    start = time.perf_counter()
    assert read("count(events, .json.t matches `(a+)+$`)", body).units == 0
    assert time.perf_counter() - start < 1
