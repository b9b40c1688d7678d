"""Which response ids tell a response from every other, and which a caller may have chosen."""

import pytest

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules import replays


@pytest.mark.parametrize(
    ("response_id", "part"),
    [
        ("chatcmpl-BxYz01AbCdEf23GhIjKl45MnOpQr6", "BxYz01AbCdEf23GhIjKl45MnOpQr6"),
        ("resp_68a1b2c3d4e5f60718293a4b5c6d7e8f", "68a1b2c3d4e5f60718293a4b5c6d7e8f"),
        ("msg_bdrk_01XFDUDYJgAACzvnptvVoYEL", "01XFDUDYJgAACzvnptvVoYEL"),
        ("cmpl-7c9e6679-7425-40de-944b-e07fc1f90ae7", "7c9e6679742540de944be07fc1f90ae7"),
        ("e5cc70bb28c444948073e77776eb30ef", "e5cc70bb28c444948073e77776eb30ef"),
        ("chatcmpl-1700000000123456789", "1700000000123456789"),
        # Three digits (Ollama), seconds, a padded counter, words, and nothing.
        ("chatcmpl-123", None),
        ("chatcmpl-1700000000", None),
        ("gen-0000000000000000000000012345", None),
        ("chatcmpl-thisisthetestanswer", None),
        ("a-response-of-the-mock-server-1", None),
        ("chatcmpl-BxYz01AbCdEf23G", None),
        ("7c9e6679-7425-40de-944b", None),
        ("chatcmpl-BxYz01AbCdEf23GhIjKl45é", None),
        ("BxYz01AbCdEf23GhIjKl45MnOpQr6-", None),
        ("Ab3dE" * 50, None),
        ("", None),
        (None, None),
    ],
)
def test_only_what_is_long_and_random_is_unique(response_id, part):
    assert replays.unique_part(response_id) == part


CHOSEN = "chatcmpl-0123456789abcdefXYZ"


@pytest.mark.parametrize(
    "text",
    [
        b"0123456789abcdefXYZ",
        b'{"request_id": "0123456789abcdefXYZ"}',
        b'{"request_id": "0123456789ABCDEFxyz"}',
        b'{"request_id": "01234567-89ab-cdef-XYZ"}',
        rb'{"request_id": "\u00301234567\u00389abcdefXYZ"}',
        rb'{"request_id": "\u003012345"}',
    ],
)
def test_an_id_that_may_come_from_the_request_is_known(text):
    assert replays.told_by_caller(CHOSEN, [b"/v1/chat/completions", text])


@pytest.mark.parametrize(
    "text", [b"", b'{"messages": [{"content": "hello \\u00e9 \\u003c \\u4f60"}]}', b"0123456789abcdef", b"chatcmpl-"]
)
def test_an_id_that_the_request_does_not_hold_is_the_upstreams_own(text):
    assert not replays.told_by_caller(CHOSEN, [text])
    assert not replays.told_by_caller("chatcmpl-123", [text, b"chatcmpl-123"])


def test_only_a_call_that_is_charged_asks_who_pays():
    assert not replays.charges({})
    assert not replays.charges({"requests": 1_000_000, "units": 0, "dollars": 0, "units:images": 0})
    for dimension in ("units", "dollars", "units:images"):
        assert replays.charges({"requests": 1_000_000, dimension: 1})


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("source", Mark)
def test_only_who_was_charged_for_all_of_it_pays_for_the_next(outcome, source):
    assert replays.pays(outcome, source) == (outcome is Outcome.COMPLETE and source is Mark.MEASURED)


def test_a_replay_is_a_request_and_nothing_else():
    taken = {"requests": 1_000_000, "units": 7, "dollars": 8, "units:images": 9}
    assert replays.nothing_but_the_request(taken) == {
        "requests": 1_000_000,
        "units": 0,
        "dollars": 0,
        "units:images": 0,
    }
    assert [replays.is_replayed(note) for note in (None, "replay", "replayedx", "replayed")] == [False] * 3 + [True]
    assert replays.is_replayed(replays.noted("x"))
    assert replays.noted(None) == "replayed"
