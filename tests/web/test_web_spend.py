"""What is spent, for the operator with cost and margin, for a key without; and who spends much faster than usual."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fakes.origin import Asked, Line
from fakes.past import record, settle
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, Stand, running

HOUR_MS = 3_600_000
CENT_NANO = 10_000_000


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("spend"), says_hi) as found:
        assert ask(found.url, request(found.key, chat(max_tokens=4))).status == 200
        (live,) = found.records(1)

        async def past() -> None:
            store, now_ms = found.house.store, int(time.time() * 1000)
            await found.house.accounts.create_customer("Busy", customer_id="busy", plan_id="pro")
            for hours in range(1, 60):
                started = now_ms - hours * HOUR_MS - 1_000
                made = record(
                    f"busy-{hours}", "pro", 1_000_000, customer_id="busy", started_ms=started, ended_ms=started
                )
                await settle(store, replace(made, cost_nano=CENT_NANO), None)
            # A hundred times as much as in any hour before it.
            made = record("busy-now", "pro", 100_000_000, customer_id="busy", user_id="alice", model="o3")
            started = now_ms - 60_000
            made = replace(made, started_ms=started, ended_ms=started, cost_nano=200 * CENT_NANO)
            await settle(store, replace(made, admitted_month=live.admitted_month), None)

        found.run(past())
        yield found


def get(stand: Stand, path: str, key: str | None = None) -> Answer:
    headers = {"X-Admin-Key": ADMIN_KEY} if key is None else {}
    return ask(stand.url, request(key, method="GET", path=path, headers=headers), "GET")


def done(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def last_month() -> str:
    today = dt.datetime.now(dt.UTC).date()
    return f"start={today - dt.timedelta(days=29)}&end={today}"


def test_totals_have_charge_cost_and_margin_and_say_what_has_no_price(stand):
    found = done(get(stand, f"/admin/spend?scope=customer&subject=busy&{last_month()}"))
    total = found["total"]
    assert (total["requests"], total["units"], total["cost"], total["charge"]) == (60, "159", "2.59", "0")
    assert (total["margin"], total["unpriced_requests"]) == ("-2.59", 0)
    assert found["rate"]["last_hour"]["cost"] == "2"
    assert 0 < float(found["rate"]["mean_per_hour"]["cost"]) < 0.1
    assert done(get(stand, f"/admin/spend?{last_month()}"))["total"]["requests"] == 61


@pytest.mark.parametrize("by", ["day", "hour", "customer", "user", "agent", "key", "plan", "route", "model"])
def test_history_adds_up_to_the_total_however_it_is_told_apart(stand, by):
    found = done(get(stand, f"/admin/spend?{last_month()}&group_by={by}&limit=1000"))
    assert found["group_by"] == by
    assert all(by in row for row in found["rows"])
    assert sum(row["requests"] for row in found["rows"]) == found["total"]["requests"] == 61
    assert sum(float(row["cost"]) for row in found["rows"]) == pytest.approx(float(found["total"]["cost"]))


def test_history_names_its_subjects(stand):
    rows = done(get(stand, f"/admin/spend?{last_month()}&group_by=user"))["rows"]
    assert [row["user"] for row in rows][:1] == ["busy/alice"]
    found = done(get(stand, f"/admin/spend?{last_month()}&scope=user&subject=busy/alice&group_by=model"))
    assert [(row["model"], row["cost"]) for row in found["rows"]] == [("o3", "2")]
    hours = done(get(stand, f"/admin/spend?{last_month()}&group_by=hour&limit=3"))["rows"]
    assert [row["hour"] for row in hours] == sorted(row["hour"] for row in hours)
    assert all(row["hour"] % HOUR_MS == 0 for row in hours)


def test_who_spends_much_faster_than_usual_is_told_with_the_figures(stand):
    found = done(get(stand, "/admin/spikes"))
    (spike,) = found["spikes"]
    assert (spike["subject"], spike["last_hour"], spike["usual_per_hour"]) == ("busy", "2", "0.01")
    assert float(spike["times"]) > 100
    assert 58 <= spike["hours"] <= 60
    assert (found["minimum"], found["factor"], found["measure"]) == ("1", "3", "cost")
    assert done(get(stand, "/admin/spikes?minimum=2.01"))["spikes"] == []
    assert done(get(stand, "/admin/spikes?factor=1000"))["spikes"] == []
    assert [each["subject"] for each in done(get(stand, "/admin/spikes?scope=model&customer=busy"))["spikes"]] == ["o3"]
    assert [each["subject"] for each in done(get(stand, "/admin/spikes?scope=global"))["spikes"]] == ["*"]
    units = done(get(stand, "/admin/spikes?scope=user&measure=units&minimum=100&hours=24"))["spikes"]
    assert [(each["subject"], each["last_hour"], each["times"]) for each in units] == [("busy/alice", "100", None)]


def test_a_key_sees_what_it_has_spent_and_not_what_providers_take(stand):
    found = done(get(stand, "/v1/spend", stand.key))
    assert (found["total"]["requests"], found["total"]["units"]) == (1, "7")
    assert [row["units"] for row in found["rows"]] == ["7"]
    assert not {"cost", "margin", "unpriced_requests"} & set(json.dumps(found).replace('"', " ").split())
    assert done(get(stand, "/v1/spend?group_by=model", stand.key))["rows"][0]["model"] == "gpt-4o"
    assert done(get(stand, "/v1/spend", stand.make_key()))["total"]["requests"] == 0
    assert ask(stand.url, request(None, method="GET", path="/v1/spend"), "GET").error["code"] == "missing_key"


@pytest.mark.parametrize(
    "path",
    [
        "spend?scope=galaxy",
        "spend?scope=customer",
        "spend?scope=global&subject=acme",
        "spend?scope=user&subject=alice",
        "spend?group_by=colour",
        "spend?limit=0",
        "spend?period=yesterday",
        "spend?start=x",
        "spend?scope=customer&subject=%00",
        "spikes?scope=galaxy",
        "spikes?measure=euros",
        "spikes?minimum=-1",
        "spikes?minimum=1e3",
        "spikes?factor=0.5",
        "spikes?factor=NaN",
        "spikes?hours=0",
        "spikes?hours=%C2%B2",
        "spikes?hours=99999999999999999999999",
        "spikes?customer=%00",
        "spikes?limit=1001",
    ],
)
def test_bad_questions_are_told(stand, path):
    answer = get(stand, f"/admin/{path}")
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


def test_without_the_admin_key_nothing_is_told(stand):
    for path in ("/admin/spend", "/admin/spikes"):
        answer = ask(stand.url, request(stand.key, method="GET", path=path), "GET")
        assert (answer.status, answer.error["code"]) == (401, "admin_key_required")
