"""One event's JSON: parsed late, once, exactly, and never with an exception."""

from decimal import Context, Decimal

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.events import Event, parse_exact


def event(raw: bytes) -> Event:
    return Event(0, "message", "", raw)


@pytest.mark.parametrize(
    "raw", [b"", b" ", b"[DONE]", b"{", b'{"a":', b"nope", b"NaN", b"[Infinity]", b'{"a":NaN}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_json_is_none(raw: bytes) -> None:
    assert event(raw).json is None
    assert event(raw).json_exact is None


def test_json_nested_too_deeply_is_none() -> None:
    raw = b"[" * 50_000 + b"]" * 50_000
    assert event(raw).json is None
    assert event(raw).json_exact is None


def test_blanks_and_a_bom_before_json_are_skipped() -> None:
    assert event(b'\n\n \xef\xbb\xbf\r\n {"a":1} \n').json == {"a": 1}


def test_a_lone_surrogate_and_bad_bytes_do_not_cost_the_event() -> None:
    assert event(b'{"t":"\\ud83d","n":3}').json["n"] == 3
    assert event(b'{"t":"\xff","n":3}').json == {"t": "�", "n": 3}


def test_numbers_that_no_double_holds_come_exact() -> None:
    assert event(b'{"n":1e400}').json == {"n": Decimal("1e400")}
    assert event(b'{"n":123456789012345678901234567890}').json_exact == {"n": 123456789012345678901234567890}
    assert event(b'{"n":0.1}').json_exact == {"n": Decimal("0.1")}
    assert event(b'{"n":18446744073709551615}').json == {"n": 2**64 - 1}
    assert parse_exact(b"9" * 6000) == Decimal("9" * 6000)
    assert event(b'{"n":1e99999999999999999999}').json is None


def test_megabytes_of_digits_stay_too_many_digits_and_take_little_room() -> None:
    for raw in (b"1." + b"0" * 50_000 + b"1", b"0." + b"1" * 50_000, b"7" * 50_000):
        found = parse_exact(raw)
        assert 1_000 < len(found.as_tuple().digits) <= 10_000
        assert found != found.normalize(Context(prec=38))
    assert parse_exact(b"1." + b"0" * 50_000) == 1


def test_json_is_parsed_once() -> None:
    one = event(b'{"a":[1]}')
    assert one.json is one.json
    assert one.json_exact is one.json_exact


def test_data_is_text_whatever_the_bytes() -> None:
    assert event("zażółć".encode()).data == "zażółć"
    assert event(b"a\xffb").data == "a�b"


@examples(200)
@given(st.binary(max_size=40) | st.text('[]{}",:0123456789.eE+-tfnaulrse\\ud8 ', max_size=40).map(str.encode))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    one = event(raw)
    assert (one.json is None) == (one.json_exact is None) or one.json_exact is None
    assert isinstance(one.data, str)
