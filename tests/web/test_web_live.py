"""``live`` on a route: the hold grows with what it says, and it is what is charged where the meter finds nothing."""

import json

import httpx
import pytest
from fakes.origin import Asked, Line
from fakes.stand import PLANS, Stand, running

from gatekeeper.explanation import again_on
from gatekeeper.meters import Mark, Outcome

CAP = 2_000
SMALL = {
    **PLANS,
    "small.toml": f"""
name = "Small"
monthly_price = 0
clamp_output = true
[quota]
units = {CAP}
window = "month"
when_used = "block"
""",
    "dollars.toml": """
name = "Dollars"
monthly_price = 0
[quota]
units = "unlimited"
window = "month"
[[limits]]
dollars = "0.01"
window = "day"
""",
}
# The provider counts seconds of video; only its last event says how many there were.
METER = 'meter = "last(events, .json.total_seconds)"'
LIVE = 'live = "sum(events, .json.seconds)"'
SECONDS = 5
ASK = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
PART = b"data: " + json.dumps({"seconds": SECONDS, "frame": "x" * 60}).encode() + b"\n\n"
WORDS = json.dumps({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "x" * 30}}]})


def routes(*more: str) -> str:
    lines = ["[[routes]]", 'name = "video"', 'path = "/v1/chat/completions"', 'upstream = "origin"', *more]
    return "\n".join(lines) + "\n"


def films(parts: int, *, at_once: bool = False, said: bool = True, part: bytes = PART):
    """A film of so many parts, which says in the end how long it was; ``at_once`` in one piece."""

    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        for _ in range(1 if at_once else parts):
            await line.chunk(part * parts if at_once else part)
        if said:
            await line.chunk(b"data: " + json.dumps({"total_seconds": parts * SECONDS}).encode() + b"\n\n")
        await line.chunk(b"data: [DONE]\n\n")
        await line.end()

    return behave


def post(stand: Stand) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stand.key}"}
    return httpx.post(stand.url + "/v1/chat/completions", json=ASK, headers=headers)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stream_is_cut_where_live_says_that_the_budget_is_used_up_and_charged_so(tmp_path, at_once):
    with running(
        tmp_path, films(3_000, at_once=at_once), plans=SMALL, plan="small", routes=routes(METER, LIVE)
    ) as stand:
        answer = post(stand)
        *events, last, rest = answer.text.split("\n\n")
        assert rest == ""
        assert json.loads(last.removeprefix("data: "))["error"]["limit"]["cap"] == str(CAP)
        record = stand.record()
        assert (record.outcome, record.source) == (Outcome.CUT, Mark.ESTIMATED)
        delivered = len(events) * SECONDS
        assert record.units_micro == delivered * 1_000_000, "what was delivered is what is charged"
        # To the unit, but for the event that was on its way and what could not be seen before it was read.
        assert CAP <= delivered <= CAP + 6 * SECONDS
        assert f"live {delivered}" in record.note
        assert stand.held_micro() == 0
        assert post(stand).status_code == 402


def test_a_stream_that_stays_within_its_budget_is_charged_what_the_meter_reads(tmp_path):
    with running(tmp_path, films(300), plans=SMALL, plan="small", routes=routes(METER, LIVE)) as stand:
        assert post(stand).text.endswith("data: [DONE]\n\n")
        record = stand.record()
        assert (record.units_micro, record.source) == (300 * SECONDS * 1_000_000, Mark.MEASURED)
        assert stand.held_micro() == 0


def test_without_live_nobody_sees_that_such_a_stream_runs_past_its_budget(tmp_path):
    with running(tmp_path, films(3_000), plans=SMALL, plan="small", routes=routes(METER)) as stand:
        assert post(stand).text.endswith("data: [DONE]\n\n")
        assert stand.record().units_micro > CAP * 1_000_000


def test_where_the_meter_finds_nothing_the_last_live_value_is_charged_and_explained(tmp_path):
    with running(tmp_path, films(20, said=False), plans=SMALL, plan="small", routes=routes(METER, LIVE)) as stand:
        assert post(stand).text.endswith("data: [DONE]\n\n")
        record = stand.record()
        assert (record.units_micro, record.source, record.outcome) == (100_000_000, Mark.ESTIMATED, Outcome.COMPLETE)
        route = stand.house.live.gateway.router.routes[0]
        again = again_on(route, record)
        assert (again.units_micro, again.source) == (record.units_micro, Mark.ESTIMATED)


@pytest.mark.parametrize(("policy", "units"), [('unmeasured = "free"', 0), ('unmeasured = "default"', 1)])
def test_live_is_the_estimate_and_no_other_policy(tmp_path, policy, units):
    with running(tmp_path, films(20, said=False), routes=routes(METER, LIVE, policy)) as stand:
        post(stand)
        assert stand.record().units_micro == units * 1_000_000


def test_live_that_finds_nothing_leaves_the_estimate_as_it_was(tmp_path):
    part = f"data: {WORDS}\n\n".encode()
    live = 'live = "last(events, .json.seconds)"'
    with running(tmp_path, films(9, said=False, part=part), routes=routes('meter = "usage().total"', live)) as stand:
        post(stand)
        record = stand.record()
        assert "output 90" in record.note
        assert "live" not in record.note


def test_a_budget_in_dollars_is_held_for_the_tokens_whatever_a_unit_is(tmp_path):
    prices = '[[prices]]\nmodel = "gpt-4o"\ninput = "2.50"\noutput = "10.00"\nper = "1M tokens"\n'
    part = f"data: {WORDS}\n\n".encode()
    with running(
        tmp_path,
        films(3_000, part=part),
        plans=SMALL,
        plan="dollars",
        routes=routes('meter = "usage().total"', 'live = "count(events)"') + prices,
    ) as stand:
        answer = post(stand)
        assert "[DONE]" not in answer.text
        record = stand.record()
        assert record.outcome is Outcome.CUT
        assert 9_000_000 <= record.cost_nano <= 10_400_000
