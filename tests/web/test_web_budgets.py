"""Limits that an operator changes while the gateway runs: what is set holds for the next call, what was used stays."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, PLANS, ROUTES, Stand, running

from gatekeeper.rules.diagnosis import all_well, diagnose

DECLARED = (
    ROUTES
    + """
[[limits]]
name = "daily-requests"
scope = "customer"
requests = 1_000
window = "day"
[[limits]]
scope = "user"
dollars = "5.00"
window = "month"
[[rates]]
name = "calls"
scope = "key"
requests = 600
per = "minute"
"""
)
TIGHT = {
    **PLANS,
    # 10 included, each of our calls takes 7.
    "tight.toml": PLANS["pro.toml"].replace("1_000_000", "10").replace('name = "Pro"', 'name = "Tight"'),
    "blocked.toml": PLANS["free.toml"].replace("10_000", "200").replace('name = "Free"', 'name = "Blocked"'),
}
DAY = {"scope": "customer", "subject": "acme", "dimension": "requests", "window": "day"}


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("budgets"), says_hi, routes=DECLARED, plans=TIGHT) as found:
        yield found


@pytest.fixture
def stand(shared: Stand) -> Iterator[Stand]:
    """The same gateway, without what the test before has set."""
    yield shared
    for row in done(admin(shared, "GET", "/admin/budgets"))["budgets"]:
        if row["from"] == "admin":
            done(admin(shared, "DELETE", f"/admin/budgets/{row['id']}"))


def admin(stand: Stand, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    text = b"" if body is None else json.dumps(body).encode()
    named = {"X-Admin-Key": ADMIN_KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return ask(stand.url, request(None, text, method=method, path=path, headers=named), method)


def done(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def customer(stand: Stand, name: str, plan: str = "pro") -> str:
    """A customer of this test alone; returns its key."""
    done(admin(stand, "POST", "/admin/customers", {"name": name, "id": name, "plan": plan}), 201)
    return stand.make_key(name)


def call(stand: Stand, key: str) -> Answer:
    return ask(stand.url, request(key, chat(max_tokens=4)))


def well(stand: Stand) -> bool:
    """The doctor's verdict."""
    now_ms = int(time.time() * 1000)
    return all_well(diagnose(stand.run(stand.house.store.figures(0, now_ms)), now_ms, 100))


def named(stand: Stand, name: str) -> dict[str, Any]:
    (row,) = [row for row in done(admin(stand, "GET", "/admin/budgets"))["budgets"] if row["name"] == name]
    return row


def test_a_cap_that_is_set_refuses_the_next_call_with_those_figures(stand):
    key = customer(stand, "capped")
    assert call(stand, key).status == 200
    made = done(admin(stand, "POST", "/admin/budgets", {**DAY, "subject": "capped", "cap": "1"}), 201)
    assert (made["from"], made["cap"], made["state"]["used"], made["state"]["remaining"]) == ("admin", "1", "1", "0")
    refused = call(stand, key)
    assert (refused.status, refused.error["code"]) == (402, "quota_exceeded")
    limit = refused.error["limit"]
    assert (limit["name"], limit["cap"], limit["used"]) == (made["name"], "1", "1")
    # Nobody else is meant.
    assert call(stand, stand.key).status == 200
    changed = done(admin(stand, "PATCH", f"/admin/budgets/{made['id']}", {"cap": 2}))
    assert (changed["version"], changed["state"]["remaining"]) == (2, "1")
    assert call(stand, key).status == 200
    assert call(stand, key).status == 402
    gone = done(admin(stand, "DELETE", f"/admin/budgets/{made['id']}"))
    assert gone["holds"] is None
    assert call(stand, key).status == 200
    assert well(stand)


def test_a_declared_limit_is_changed_by_its_id_and_stands_again_when_that_is_deleted(stand):
    row = named(stand, "daily-requests")
    assert (row["from"], row["cap"], row["version"], row["declared"]) == ("file", "1000", 0, None)
    key = customer(stand, "declared")
    assert call(stand, key).status == 200
    changed = done(admin(stand, "PATCH", f"/admin/budgets/{row['id']}", {"cap": "1"}))
    assert (changed["id"], changed["from"], changed["name"]) == (row["id"], "admin", "daily-requests")
    assert changed["declared"] == {"cap": "1000", "mode": "block", "from": "file"}
    assert call(stand, key).error["limit"]["cap"] == "1"
    done(admin(stand, "PATCH", f"/admin/budgets/{row['id']}", {"mode": "warn"}))
    assert call(stand, key).status == 200
    left = done(admin(stand, "DELETE", f"/admin/budgets/{row['id']}"))["holds"]
    assert (left["from"], left["cap"], left["mode"]) == ("file", "1000", "block")
    assert call(stand, key).status == 200


def test_a_reset_opens_a_hit_daily_cap_and_erases_nothing(stand):
    key = customer(stand, "reset")
    made = done(admin(stand, "POST", "/admin/budgets", {**DAY, "subject": "reset", "cap": "1"}), 201)
    assert call(stand, key).status == 200
    assert call(stand, key).status == 402
    reset = done(admin(stand, "POST", f"/admin/budgets/{made['id']}/reset", {"reason": "it was our mistake"}))
    assert (reset["state"]["used"], reset["state"]["starts_ms"]) == ("0", reset["reset_ms"])
    assert call(stand, key).status == 200
    assert call(stand, key).status == 402
    assert len(stand.records(2, "reset")) == 2
    usage = done(admin(stand, "GET", "/admin/customers/reset/usage"))
    assert usage["requests_count"] == 2
    assert well(stand)


def test_a_call_in_flight_ends_on_the_count_on_which_it_began(tmp_path):
    import threading

    begun, go_on = threading.Event(), threading.Event()

    async def waits(asked: Asked, line: Line) -> None:
        import asyncio

        begun.set()
        await asyncio.to_thread(go_on.wait, 10)
        await says_hi(asked, line)

    with running(tmp_path, waits) as stand, ThreadPoolExecutor(1) as threads:
        made = done(admin(stand, "POST", "/admin/budgets", {**DAY, "cap": "1"}), 201)
        first = threads.submit(call, stand, stand.key)
        assert begun.wait(10)
        assert call(stand, stand.key).error["code"] == "limit_held"
        reset = done(admin(stand, "POST", f"/admin/budgets/{made['id']}/reset"))
        assert (reset["state"]["used"], reset["state"]["held"]) == ("0", "0")
        go_on.set()
        assert first.result().status == 200
        stand.records(1)
        assert done(admin(stand, "GET", f"/admin/budgets/{made['id']}"))["state"]["used"] == "0"
        assert call(stand, stand.key).status == 200
        assert well(stand)


def test_another_process_on_the_same_database_follows_within_a_second(tmp_path, store_url):
    with (
        running(tmp_path, says_hi, database_url=store_url) as one,
        running(tmp_path, says_hi, database_url=store_url) as two,
    ):
        assert call(two, two.key).status == 200
        made = done(admin(one, "POST", "/admin/budgets", {**DAY, "cap": "1"}), 201)
        began_s = time.monotonic()
        while call(two, two.key).status == 200:
            assert time.monotonic() - began_s < 1.0
        done(admin(one, "POST", f"/admin/budgets/{made['id']}/reset"))
        began_s = time.monotonic()
        while call(two, two.key).status == 402:
            assert time.monotonic() - began_s < 1.0
        assert well(one)


def test_of_two_who_change_the_same_state_one_wins(stand):
    made = admin(stand, "POST", "/admin/budgets", {**DAY, "cap": "10"})
    tag, name = made.header("etag"), done(made, 201)["id"]
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(
                lambda cap: admin(stand, "PATCH", f"/admin/budgets/{name}", {"cap": str(cap)}, If_Match=tag), range(6)
            )
        )
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    (won,) = [json.loads(answer.body) for answer in answers if answer.status == 200]
    now = admin(stand, "GET", f"/admin/budgets/{name}")
    assert (json.loads(now.body)["cap"], json.loads(now.body)["version"]) == (won["cap"], 2)
    assert admin(stand, "DELETE", f"/admin/budgets/{name}", If_Match=tag).status == 409
    done(admin(stand, "DELETE", f"/admin/budgets/{name}", If_Match=now.header("etag")))
    # Made again it is another limit: what was read of the first one means nothing.
    again = admin(stand, "POST", "/admin/budgets", {**DAY, "cap": "10"})
    assert again.header("etag") != tag


def test_without_a_tag_the_last_word_counts(stand):
    row = named(stand, "daily-requests")
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(
            lambda cap: admin(stand, "PATCH", f"/admin/budgets/{row['id']}", {"cap": str(cap)}), range(900, 904)
        )
        found = [done(answer) for answer in answers]
    now = named(stand, "daily-requests")
    assert now["version"] == 4
    assert max(each["version"] for each in found) == 4
    assert now["cap"] in {"900", "901", "902", "903"}


def test_a_create_that_is_sent_again_is_answered_again(stand):
    body = {**DAY, "cap": "10"}
    first = admin(stand, "POST", "/admin/budgets", body, Idempotency_Key="a1")
    again = admin(stand, "POST", "/admin/budgets", body, Idempotency_Key="a1")
    assert (again.status, again.header("etag")) == (201, first.header("etag"))
    assert admin(stand, "POST", "/admin/budgets", {**body, "cap": "11"}, Idempotency_Key="a1").status == 422
    assert admin(stand, "POST", "/admin/budgets", body).status == 409


def test_a_cap_for_one_customer_takes_the_place_of_a_quota_that_blocks(stand):
    key = customer(stand, "quota", "blocked")
    quota = {"scope": "customer", "subject": "quota", "dimension": "units", "window": "month"}
    made = done(admin(stand, "POST", "/admin/budgets", {**quota, "cap": "7"}), 201)
    refused = call(stand, key)
    assert (refused.error["code"], refused.error["limit"]["cap"]) == ("exceeds_limit", "7")
    limits = json.loads(ask(stand.url, request(key, method="GET", path="/v1/usage"), "GET").body)["limits"]
    assert [(limit["name"], limit["cap"]) for limit in limits if limit["dimension"] == "units"] == [("quota", "7")]
    done(admin(stand, "PATCH", f"/admin/budgets/{made['id']}", {"cap": "unlimited"}))
    for _ in range(30):
        assert call(stand, key).status == 200
    done(admin(stand, "DELETE", f"/admin/budgets/{made['id']}"))
    refused = call(stand, key)
    assert (refused.status, refused.error["limit"]["cap"]) == (402, "200")


def test_a_cap_beside_a_priced_quota_ends_the_overage_and_changes_no_price(stand):
    key = customer(stand, "priced", "tight")
    quota = {"scope": "customer", "subject": "priced", "dimension": "units", "window": "month"}
    made = done(admin(stand, "POST", "/admin/budgets", {**quota, "cap": "1000"}), 201)
    for _ in range(3):
        assert call(stand, key).status == 200
    # 21 taken, 10 included: 11 at $0.001 each, whatever the operator's cap is.
    assert sum(record.charge_nano for record in stand.records(3, "priced")) == 11_000_000
    done(admin(stand, "PATCH", f"/admin/budgets/{made['id']}", {"cap": "21"}))
    assert call(stand, key).status == 402
    # Only the cap begins anew: the price goes on where it was.
    reset = done(admin(stand, "POST", f"/admin/budgets/{made['id']}/reset"))
    assert reset["state"]["used"] == "0"
    done(admin(stand, "PATCH", f"/admin/budgets/{made['id']}", {"cap": "500"}))
    assert call(stand, key).status == 200
    assert sum(record.charge_nano for record in stand.records(4, "priced")) == 18_000_000
    assert well(stand)


def test_a_priced_quota_cannot_be_reset(stand):
    customer(stand, "unreset", "tight")
    rows = done(admin(stand, "GET", "/admin/budgets?scope=customer&subject=unreset"))["budgets"]
    (row,) = [row for row in rows if row["mode"] == "overage"]
    assert (row["plan"], row["from"], row["cap"]) == ("tight", "plan", "10")
    answer = admin(stand, "POST", f"/admin/budgets/{row['id']}/reset", {"subject": "unreset"})
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert "given twice" in answer.error["message"]


def test_what_a_plan_sells_is_reset_for_one_customer_and_changed_for_none(stand):
    key = customer(stand, "sold", "blocked")
    while (answer := call(stand, key)).status == 200:
        pass
    assert answer.error["limit"]["name"] == "quota"
    rows = done(admin(stand, "GET", "/admin/budgets?scope=customer&subject=sold"))["budgets"]
    (row,) = [row for row in rows if row["plan"] == "blocked" and row["family"] == "stock"]
    answer = admin(stand, "PATCH", f"/admin/budgets/{row['id']}", {"cap": "1"})
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert admin(stand, "POST", f"/admin/budgets/{row['id']}/reset").status == 400
    done(admin(stand, "POST", f"/admin/budgets/{row['id']}/reset", {"subject": "sold"}))
    assert call(stand, key).status == 200
    assert well(stand)


def test_a_subject_sees_what_holds_for_it_and_a_default_names_who_used_most(stand):
    key = customer(stand, "seen")
    for _ in range(2):
        assert call(stand, key).status == 200
    rows = done(admin(stand, "GET", "/admin/budgets?scope=customer&subject=seen"))["budgets"]
    assert [(row["name"], row["plan"], row["state"]["used"]) for row in rows] == [
        ("quota", "pro", "14"),
        ("daily-requests", None, "2"),
    ]
    row = named(stand, "daily-requests")
    assert row["state"] is None
    assert {"subject": "seen", "used": "2"} in [
        {name: each[name] for name in ("subject", "used")}
        for each in done(admin(stand, "GET", f"/admin/budgets/{row['id']}?limit=100"))["top"]
    ]
    assert len(done(admin(stand, "GET", f"/admin/budgets/{row['id']}?limit=1"))["top"]) == 1
    one = done(admin(stand, "GET", f"/admin/budgets/{row['id']}?subject=seen"))
    assert (one["state"]["used"], one["state"]["remaining"]) == ("2", "998")


def test_a_rate_is_shown_with_what_is_spent_and_changed(stand):
    row = named(stand, "calls")
    assert (row["family"], row["per_ms"], row["cap"]) == ("rate", 60_000, "600")
    key = customer(stand, "rated")
    for _ in range(3):
        assert call(stand, key).status == 200
    key_id = stand.run(stand.house.store.keys("rated"))[0].id
    (mine,) = [
        each
        for each in done(admin(stand, "GET", f"/admin/budgets?scope=key&subject={key_id}"))["budgets"]
        if each["name"] == "calls"
    ]
    assert 2 < float(mine["state"]["spent"]) <= 3
    body = {"scope": "key", "subject": key_id, "dimension": "requests", "per_ms": 60_000, "cap": "3"}
    done(admin(stand, "POST", "/admin/budgets", body), 201)
    statuses = [call(stand, key).status for _ in range(2)]
    assert statuses[-1] == 429
    assert admin(stand, "POST", f"/admin/budgets/{row['id']}/reset", {"subject": key_id}).status == 400


def test_pages_of_limits_miss_and_repeat_nothing(stand):
    for number in range(3):
        done(
            admin(stand, "POST", "/admin/budgets", {**DAY, "scope": "agent", "subject": f"a{number}", "cap": "1"}), 201
        )
    whole = [row["id"] for row in done(admin(stand, "GET", "/admin/budgets"))["budgets"]]
    found: list[str] = []
    page = done(admin(stand, "GET", "/admin/budgets?limit=2"))
    while page["next"]:
        found += [row["id"] for row in page["budgets"]]
        page = done(admin(stand, "GET", f"/admin/budgets?limit=2&after={page['next']}"))
    assert [*found, *(row["id"] for row in page["budgets"])] == whole
    agents = done(admin(stand, "GET", "/admin/budgets?scope=agent"))["budgets"]
    assert [row["subject"] for row in agents] == ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {**DAY},
        {**DAY, "cap": "-1"},
        {**DAY, "cap": 0.1},
        {**DAY, "cap": "1e3"},
        {**DAY, "cap": True},
        {**DAY, "cap": "9" * 40},
        {**DAY, "cap": "1", "mode": "overage"},
        {**DAY, "cap": "1", "mode": "explode"},
        {**DAY, "cap": "1", "zone": "Mars/Olympus"},
        {**DAY, "cap": "1", "zone": "../etc/passwd"},
        {**DAY, "cap": "1", "window": "week"},
        {**DAY, "cap": "1", "per_ms": 60_000},
        {**DAY, "cap": "1", "name": "quota"},
        {**DAY, "cap": "1", "name": "daily-requests"},
        {**DAY, "cap": "1", "name": "a b"},
        {**DAY, "cap": "1", "subject": "nobody"},
        {**DAY, "cap": "1", "subject": "a/b"},
        {**DAY, "cap": "1", "subject": "a\0"},
        {**DAY, "cap": "1", "scope": "galaxy"},
        {**DAY, "cap": "1", "scope": "global", "subject": "acme"},
        {**DAY, "cap": "1", "scope": "plan", "subject": "gold"},
        {**DAY, "cap": "1", "scope": "route", "subject": "caht"},
        {**DAY, "cap": "1", "scope": "key", "subject": "key_none"},
        {**DAY, "cap": "1", "scope": "user", "subject": "nobody/alice"},
        {**DAY, "cap": "1", "dimension": "units:pictures"},
        {**DAY, "cap": "1", "dimension": "euros"},
        {**DAY, "cap": "1", "color": "red"},
        {"scope": "key", "dimension": "requests", "per_ms": 60_000, "cap": "0"},
        {"scope": "key", "dimension": "requests", "per_ms": 7, "cap": "1"},
        {"scope": "key", "dimension": "requests", "per_ms": 60_000, "cap": "1", "mode": "warn"},
    ],
)
def test_a_limit_that_cannot_be_is_told_and_changes_nothing(stand, body):
    before = admin(stand, "GET", "/admin/budgets").body
    answer = admin(stand, "POST", "/admin/budgets", body)
    assert (answer.status, answer.error["code"]) == (400, "bad_request"), answer
    assert json.loads(admin(stand, "GET", "/admin/budgets").body) == json.loads(before)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/admin/budgets/lim_none", None, 404),
        ("PATCH", "/admin/budgets/lim_none", {"cap": "1"}, 404),
        ("DELETE", "/admin/budgets/lim_none", None, 404),
        ("POST", "/admin/budgets/lim_none/reset", {}, 404),
        ("GET", "/admin/budgets?scope=galaxy", None, 400),
        ("GET", "/admin/budgets?subject=acme", None, 400),
        ("GET", "/admin/budgets?scope=user&subject=alice", None, 400),
        ("GET", "/admin/budgets?scope=customer&subject=nobody", None, 404),
        ("GET", "/admin/budgets?scope=key&subject=key_none", None, 404),
        ("GET", "/admin/budgets?after=lim_none", None, 400),
        ("GET", "/admin/budgets?limit=0", None, 400),
        ("GET", "/admin/budgets?scope=customer&subject=%00", None, 400),
    ],
)
def test_bad_questions_are_told(stand, method, path, body, status):
    assert admin(stand, method, path, body).status == status


def test_a_declared_limit_cannot_be_deleted_and_an_odd_tag_is_told(stand):
    row = named(stand, "daily-requests")
    assert admin(stand, "DELETE", f"/admin/budgets/{row['id']}").status == 409
    path = f"/admin/budgets/{row['id']}"
    assert admin(stand, "PATCH", path, {"cap": "1"}, If_Match="0-0").status == 400
    assert admin(stand, "PATCH", path, {"cap": "1"}, If_Match='"1-1"').status == 409
    assert admin(stand, "PATCH", path, {"cap": "900"}, If_Match='"0-0"').status == 200


def test_without_the_admin_key_no_limit_is_told(stand):
    for method, path in (("GET", "/admin/budgets"), ("POST", "/admin/budgets"), ("GET", "/admin/budgets/x")):
        answer = ask(stand.url, request(None, method=method, path=path), method)
        assert (answer.status, answer.error["code"]) == (401, "admin_key_required")


def test_an_agent_asks_what_it_may_still_spend(stand):
    key = customer(stand, "asking", "blocked")
    assert call(stand, key).status == 200
    done(admin(stand, "POST", "/admin/budgets", {**DAY, "subject": "asking", "cap": "5"}), 201)
    answer = ask(stand.url, request(key, method="GET", path="/v1/budget"), "GET")
    found = done(answer)
    assert found["remaining"] == {"units": "193", "requests": "4"}
    assert [limit["remaining"] for limit in found["limits"]] == ["193", "4"]
    assert all(limit["resets_ms"] > time.time() * 1000 for limit in found["limits"])
    assert {rate["per_ms"] for rate in found["rates"]} == {60_000}
    user = stand.make_key("asking", user_id="alice")
    found = done(ask(stand.url, request(user, method="GET", path="/v1/budget"), "GET"))
    assert found["remaining"]["dollars"] == "5"
    assert ask(stand.url, request(None, method="GET", path="/v1/budget"), "GET").status == 401
