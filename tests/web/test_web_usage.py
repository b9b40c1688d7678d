"""What a key may ask about itself: usage, models, its own requests, and nothing of anybody else."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ROUTES, Stand, running

from gatekeeper.accounts import KeyWish
from gatekeeper.errors import Refusal
from gatekeeper.web.usage import period_bounds

MODELS = ROUTES.replace('name = "chat"\n', 'name = "chat"\nmodels = ["gpt-4o", "gpt-4o-mini", "shared"]\n').replace(
    'name = "messages"\n', 'name = "messages"\nmodels = ["claude-3", "shared"]\n'
)
DAY = dt.timedelta(days=1)


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("usage"), says_hi, routes=MODELS) as found:
        for _ in range(3):
            assert ask(found.url, request(found.key, chat())).status == 200
        found.records(3)
        yield found


def get(stand: Stand, path: str, key: str | None = None) -> Answer:
    return ask(stand.url, request(key or stand.key, method="GET", path=path), "GET")


def other_key(stand: Stand) -> str:
    async def makes() -> str:
        if await stand.house.store.customer("other") is None:
            await stand.house.accounts.create_customer("Other", customer_id="other", plan_id="free")
        return (await stand.house.accounts.create_key("other", KeyWish())).secret

    found: str = stand.run(makes())
    return found


@pytest.mark.parametrize("query", ["", "?period=current_month", "?period=last_30_days"])
def test_a_key_sees_its_own_usage(stand, query):
    answer = get(stand, "/v1/usage" + query)
    assert (answer.status, answer.header("cache-control")) == (200, "no-store")
    found: dict[str, Any] = json.loads(answer.body)
    assert (found["tokens_used"], found["requests"], found["plan"]) == (21, 3, "pro")
    assert [day["tokens_used"] for day in found["days"]] == [21]
    (limit,) = found["limits"]
    assert (limit["used"], limit["held"], limit["cap"]) == ("21", "0", "1000000")


def test_usage_of_a_day_is_found_by_its_dates_inclusive(stand):
    today = dt.datetime.now(dt.UTC).date()
    for first, last, tokens in (
        (today, today, 21),
        (today - 9 * DAY, today - DAY, 0),
        (today + DAY, today + 2 * DAY, 0),
    ):
        found = json.loads(get(stand, f"/v1/usage?start={first}&end={last}").body)
        assert (found["tokens_used"], found["period_start"], found["period_end"]) == (tokens, f"{first}", f"{last}")


def test_another_key_of_the_customer_sees_its_own_usage_but_the_customers_limits(stand):
    found = json.loads(get(stand, "/v1/usage", stand.make_key()).body)
    assert (found["tokens_used"], found["limits"][0]["used"]) == (0, "21")


@pytest.mark.parametrize(
    "query",
    ["period=yesterday", "start=2024-13-01", "start=x", "end=2024-02-30", "start=2024-02-02&end=2024-02-01",
     "start=0001-01-01",
     "start=9999-12-31&end=9999-12-31", "period=current_month&start=2024-01-01", "start=2020-01-01&end=2024-01-01",
     "end=1969-12-31&start=1969-01-01", "start=%00", "start=-1", "start="],
)  # fmt: skip
def test_a_period_that_is_none_is_told(stand, query):
    answer = get(stand, "/v1/usage?" + query)
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


def test_periods_are_whole_days_in_utc():
    now_ms = int(dt.datetime(2024, 3, 1, 0, 0, 1, tzinfo=dt.UTC).timestamp() * 1000)
    day_ms = 86_400_000
    start_ms, end_ms = period_bounds({}, now_ms)
    assert (start_ms, end_ms) == (now_ms - 1000, now_ms - 1000 + day_ms)
    start_ms, end_ms = period_bounds({"period": "last_30_days"}, now_ms)
    assert end_ms - start_ms == 30 * day_ms
    start_ms, end_ms = period_bounds({"start": "2024-02-01", "end": "2024-02-29"}, now_ms)
    assert end_ms - start_ms == 29 * day_ms
    with pytest.raises(Refusal):
        period_bounds({"end": "2024-02-29"}, now_ms)


def test_models_are_those_of_the_routes_that_the_key_may_use(stand):
    def models(**wish: Any) -> list[str]:
        found = json.loads(get(stand, "/v1/models", stand.make_key(**wish)).body)
        assert found["object"] == "list"
        return sorted(row["id"] for row in found["data"])

    assert models() == ["claude-3", "gpt-4o", "gpt-4o-mini", "shared"]
    assert models(routes=["messages"]) == ["claude-3", "shared"]
    assert models(models=["gpt-4o*"]) == ["gpt-4o", "gpt-4o-mini"]
    assert models(routes=["messages"], models=["gpt-*"]) == []
    assert models(routes=[]) == []


def test_a_request_is_shown_to_its_customer_and_to_nobody_else(stand):
    call_id = ask(stand.url, request(stand.key, chat())).header("x-gatekeeper-call-id")
    stand.records(4)
    found = json.loads(get(stand, f"/v1/requests/{call_id}").body)
    assert (found["id"], found["units"], found["source"], found["status"]) == (call_id, "7", "measured", 200)
    assert get(stand, f"/v1/requests/{call_id}", stand.make_key()).status == 200
    foreign = get(stand, f"/v1/requests/{call_id}", other_key(stand))
    absent = get(stand, "/v1/requests/call_none", other_key(stand))
    assert (foreign.status, foreign.body) == (404, absent.body)
    for odd in ("%00", "%F0%9F", "'--", "x" * 5000):
        assert get(stand, f"/v1/requests/{odd}").status in (400, 404)


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/models", "/v1/requests/x"])
def test_without_a_key_nothing_is_told(stand, path):
    assert ask(stand.url, request(None, method="GET", path=path), "GET").error["code"] == "missing_key"
    assert json.loads(get(stand, f"{path}?key={stand.key}x").body)["error"]["code"] == "conflicting_keys"


def test_health_needs_no_key(stand):
    for path in ("/healthz", "/readyz"):
        assert ask(stand.url, request(None, method="GET", path=path), "GET").status == 200
