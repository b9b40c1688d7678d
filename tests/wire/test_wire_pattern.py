"""A learned event against other bytes: the quick ways say what JSON, read plainly, says."""

import json

from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.pattern import Hole, Pattern

END = b"\n\n"
# Text and number, then a text that does not count: every kind of hole, and more than one.
TWO = Pattern(
    "message",
    b'{"t":"',
    (Hole(True, True, b'","n":'), Hole(False, False, b',"o":"'), Hole(True, False, b"")),
    b'"}',
    3,
    None,
)
ONE = Pattern("message", b'{"t":"', (Hole(True, True, b""),), b'"}', 0, None)
PATTERNS = {"one": ONE, "two": TWO}
INSIDES = st.sampled_from(
    [b"a", b" the", b"\xc3\xbc", "日本".encode(), b"", b"\\n", b"\\u00fc", b"\\ud83d", b"\\ude00", b'\\"', b'"', b"\\",
     b"\xff", b"\xc3", b"\xbc", b"\x00", b"\n", b"\r", b"\x7f", b'","n":', b'"}\n\n{"t":"',
     b"\\\\", b'\\","n":7,"o":"x']
)  # fmt: skip
NUMBERS = st.sampled_from(
    [b"0", b"7", b"12345678901234567", b"123456789012345678", b"-1", b"01", b"1.5", b"1e3", b"1,2", b"", b"7 "]
)


@st.composite
def payloads(draw: st.DrawFn, kind: str) -> bytes:
    """Nearly always an event like the pattern; sometimes with something odd in it."""
    text, other, number = b"".join(draw(st.lists(INSIDES, min_size=1, max_size=3))), draw(INSIDES), draw(NUMBERS)
    made = b'{"t":"%s"}' % text if kind == "one" else b'{"t":"%s","n":%s,"o":"%s"}' % (text, number, other)
    return draw(st.sampled_from([made, made, made, made[1:], made[:-1], made + b" ", b"", made + made]))


def plainly(kind: str, raw: bytes) -> int:
    """The text of an event that is like the pattern, by reading it; else -1."""
    try:
        found = json.loads(raw.decode())
        sizes = [len(found[key].encode()) for key in ("t", "o")[: 1 if kind == "one" else 2]]
        again = b'{"t":"%s"}' if kind == "one" else b'{"t":"%s","n":%d,"o":"%s"}'
        keys = ["t"] if kind == "one" else ["t", "n", "o"]
    except (ValueError, TypeError, KeyError, AttributeError):
        return -1
    number = found.get("n", 0)
    if list(found) != keys or not all(sizes) or type(number) is not int or not 0 <= number < 10**17:
        return -1
    if raw.startswith(again[:6]) and raw.endswith(b"}") and b" " not in raw[-3:]:
        return sizes[0] + (0 if kind == "one" else 3)
    return -1


@examples(200)
@given(st.data(), st.sampled_from(sorted(PATTERNS)))
def test_one_event_is_known_exactly_where_reading_it_says_the_same(data: st.DataObject, kind: str) -> None:
    raw = data.draw(payloads(kind))
    pattern = PATTERNS[kind]
    found = pattern.one(raw)
    at, text = pattern.first(raw, 0)
    assert found == (text if at == len(raw) else -1)
    assert found == pattern.bare(raw) == pattern.framed(b"data: ", END).bare(raw)
    # Escapes in the fixed parts would be another event: what is known is always right, and what is plain is known.
    if found >= 0:
        assert found == plainly(kind, raw)


@examples(200)
@given(st.data(), st.sampled_from(sorted(PATTERNS)), st.sampled_from([b"", b"data: ", b"{"]))
def test_many_events_at_once_are_what_they_are_one_by_one(data: st.DataObject, kind: str, rest: bytes) -> None:
    framed = PATTERNS[kind].framed(b"data: ", END)
    raws = data.draw(st.lists(payloads(kind), max_size=5))
    chunk = b"".join(b"data: " + raw + END for raw in raws) + rest
    at = text = count = begun = 0
    while (step := framed.first(chunk, at))[0] >= 0:
        begun, at, text, count = at, step[0], text + step[1], count + 1
    many, many_text, size, last = framed.many(chunk)
    if many:
        assert (many, many_text, size) == (count, text, at)
        assert last == chunk[begun:at].removeprefix(b"data: ").removesuffix(END)
    else:
        # All or nothing: then one of them was odd, or there was none.
        assert at < len(chunk) - len(rest) or not raws


def test_nothing_is_lost_between_two_events_that_only_together_would_be_text() -> None:
    framed = ONE.framed(b"data: ", END)
    for left, right in ((b"a\\", b"n"), (b"\\u00", b"fc"), (b"\xc3", b"\xbc"), (b"\\ud83d", b"\\ude00")):
        chunk = b'data: {"t":"%s"}\n\ndata: {"t":"%s"}\n\n' % (left, right)
        assert framed.many(chunk)[0] == 0
        assert framed.first(chunk, 0)[0] == -1


def test_a_number_that_is_missing_is_not_made_up_by_the_one_before_it() -> None:
    framed = TWO.framed(b"data: ", END)
    for numbers in ((b"0", b""), (b"", b"0"), (b"1", b"2,3"), (b"1,2", b"")):
        made = [b'data: {"t":"a","n":%s,"o":"b"}\n\n' % number for number in numbers]
        assert framed.many(b"".join(made))[0] == 0
