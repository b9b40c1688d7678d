"""The breadth of the operator's API: customers with caps, keys that are replaced, plans, routes, revenue, requests that
are found and explained, outbox, notifications, configuration and health. Bad input is told and changes nothing."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, Stand, running

from gatekeeper.web.answers import json_answer

SQL = "x' OR '1'='1' --"


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("operating"), says_hi) as found:
        yield found


def admin(stand: Stand, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(
        stand.url, request(None, text, method=method, path=path, headers={"X-Admin-Key": ADMIN_KEY, **named}), method
    )


def done(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def refused(answer: Answer, status: int = 400) -> str:
    error = done(answer, status)["error"]
    assert set(error) >= {"message", "type", "code"}
    return error["message"]


LIMITS = [
    {"dimension": "requests", "window": "day", "cap": "1"},
    {"dimension": "dollars", "window": "month", "cap": "50.00", "name": "fifty"},
]


def test_a_customer_is_made_with_caps_that_hold_from_the_first_call(stand):
    made = done(admin(stand, "POST", "/admin/customers", {"name": "Capped", "id": "capped", "limits": LIMITS[:1]}), 201)
    assert (made["disabled"], made["limits"][0]["cap"], made["limits"][0]["subject"]) == (False, "1", "capped")
    key = done(admin(stand, "POST", "/admin/customers/capped/keys", {}), 201)["key"]
    assert ask(stand.url, request(key, chat())).status == 200
    over = ask(stand.url, request(key, chat()))
    assert (over.status, json.loads(over.body)["error"]["limit"]["scope"]) == (402, "customer")


@pytest.mark.parametrize(
    "wrong",
    [
        [{"dimension": "nonsense", "window": "day", "cap": "1"}],
        [{"dimension": "units", "window": "day", "cap": "-1"}],
        [{"dimension": "units", "window": "fortnight", "cap": "1"}],
        [{"dimension": "units", "cap": "1"}],
        [{"dimension": "units", "window": "day"}],
        [{"dimension": "units", "window": "day", "cap": "1"}] * 2,
        [{"dimension": "units", "window": "day", "cap": "1", "scope": "global"}],
        ["units"],
        "units",
    ],
)
def test_a_customer_with_a_cap_that_is_none_is_not_made_at_all(stand, wrong):
    refused(admin(stand, "POST", "/admin/customers", {"name": "N", "id": "never", "limits": wrong}))
    refused(admin(stand, "GET", "/admin/customers/never"), 404)


def test_a_create_that_is_sent_again_makes_one_customer(stand):
    body = {"name": "Once", "limits": LIMITS[1:]}
    first = admin(stand, "POST", "/admin/customers", body, Idempotency_Key="once-1")
    again = admin(stand, "POST", "/admin/customers", body, Idempotency_Key="once-1")
    assert done(first, 201) == done(again, 201)
    assert [each["name"] for each in done(admin(stand, "GET", "/admin/customers?find=ONCE"))["customers"]] == ["Once"]


def test_a_change_that_is_meant_for_another_state_changes_nothing(stand):
    done(admin(stand, "POST", "/admin/customers", {"name": "T", "id": "tagged", "email": "t@example.com"}), 201)
    seen = admin(stand, "GET", "/admin/customers/tagged").header("etag")
    changed = admin(stand, "PATCH", "/admin/customers/tagged", {"name": "T2", "email": None}, If_Match=seen)
    assert (done(changed)["email"], changed.header("etag") != seen) == (None, True)
    refused(admin(stand, "PATCH", "/admin/customers/tagged", {"name": "T3"}, If_Match=seen), 412)
    refused(admin(stand, "DELETE", "/admin/customers/tagged", If_Match=seen), 412)
    assert done(admin(stand, "GET", "/admin/customers/tagged"))["name"] == "T2"


def test_a_change_is_made_as_a_whole_or_not_at_all(stand):
    done(admin(stand, "POST", "/admin/customers", {"name": "W", "id": "whole"}), 201)
    path = "/admin/customers/whole"
    refused(admin(stand, "PATCH", path, {"name": "X", "plan": "nonsense"}))
    refused(admin(stand, "PATCH", path, {"name": "X", "email": "no address"}))
    refused(admin(stand, "PATCH", path, {"name": "X", "stripe_customer_id": "cus_1; DROP"}))
    refused(admin(stand, "PATCH", path, {"name": "X", "created_ms": 1}))
    assert done(admin(stand, "GET", path))["name"] == "W"
    assert done(admin(stand, "PATCH", path, {"stripe_customer_id": "cus_whole"}))["stripe_customer_id"] == "cus_whole"
    done(admin(stand, "POST", "/admin/customers", {"name": "V", "id": "other"}), 201)
    refused(admin(stand, "PATCH", "/admin/customers/other", {"stripe_customer_id": "cus_whole"}), 409)


def test_an_archived_customer_is_served_no_more_and_its_records_stay(stand):
    done(admin(stand, "POST", "/admin/customers", {"name": "A", "id": "archived"}), 201)
    key = done(admin(stand, "POST", "/admin/customers/archived/keys", {}), 201)["key"]
    assert ask(stand.url, request(key, chat())).status == 200
    stand.records(1, "archived")
    gone = done(admin(stand, "DELETE", "/admin/customers/archived"))
    assert (gone["disabled"], gone["keys_revoked"]) == (True, 1)

    async def is_refused() -> bool:
        return (await asyncio.to_thread(ask, stand.url, request(key, chat()))).status in (401, 403)

    stand.wait_until(is_refused)
    assert done(admin(stand, "DELETE", "/admin/customers/archived"))["keys_revoked"] == 0
    assert pages(stand, "/admin/requests?customer_id=archived", "requests")


def test_a_key_that_is_replaced_has_the_same_scopes_and_some_hours_more(stand):
    scopes = {"name": "ci", "models": ["gpt-*"], "agent_id": "robot"}
    old = done(admin(stand, "POST", "/admin/customers/acme/keys", scopes), 201)
    new = done(admin(stand, "POST", f"/admin/keys/{old['id']}/rotate", {"grace_hours": 2}), 201)
    assert (new["models"], new["agent_id"], new["name"]) == (["gpt-*"], "robot", "ci")
    hours = (new["replaces"]["expires_ms"] - new["created_ms"]) / 3_600_000
    assert 1.99 < hours < 2.01
    assert (
        ask(stand.url, request(old["key"], chat())).status == ask(stand.url, request(new["key"], chat())).status == 200
    )
    at_once = done(admin(stand, "POST", f"/admin/keys/{new['id']}/rotate", {}), 201)
    assert at_once["replaces"]["revoked_ms"] is not None
    refused(admin(stand, "POST", f"/admin/keys/{new['id']}/rotate", {}), 409)
    refused(admin(stand, "POST", f"/admin/keys/{old['id']}/rotate", {"grace_hours": -1}))
    refused(admin(stand, "POST", f"/admin/keys/{old['id']}/rotate", {"grace_hours": 721}))
    refused(admin(stand, "POST", "/admin/keys/key_0/rotate", {}), 404)
    # A key that ends sooner than the grace ends when it was to end.
    ends_ms = old["created_ms"] + 60_000
    short = done(admin(stand, "POST", "/admin/customers/acme/keys", {"expires_ms": ends_ms}), 201)
    kept = done(admin(stand, "POST", f"/admin/keys/{short['id']}/rotate", {"grace_hours": 5}), 201)
    assert kept["replaces"]["expires_ms"] == ends_ms
    assert all("key" not in each for each in done(admin(stand, "GET", "/admin/keys"))["keys"])


def pages(stand: Stand, path: str, name: str) -> list[dict[str, Any]]:
    """All of a list, two at a time; each page says where the next one begins."""
    found, after = [], None
    while True:
        sign = "&" if "?" in path else "?"
        answer = done(admin(stand, "GET", f"{path}{sign}limit=2" + (f"&after={quote(after)}" if after else "")))
        assert len(answer[name]) <= 2
        found += answer[name]
        after = answer["next"]
        if after is None:
            return found


@pytest.mark.parametrize(
    ("path", "name", "key"),
    [
        ("/admin/customers", "customers", "id"),
        ("/admin/keys", "keys", "id"),
        ("/admin/customers/acme/keys", "keys", "id"),
        ("/admin/requests", "requests", "id"),
        ("/admin/requests?customer_id=acme&outcome=complete", "requests", "id"),
        ("/admin/budgets", "budgets", "id"),
    ],
)
def test_pages_follow_each_other_without_a_gap_or_a_repeat(stand, path, name, key):
    for _ in range(3):
        ask(stand.url, request(stand.key, chat()))
    stand.records(3)
    whole = done(admin(stand, "GET", path + ("&" if "?" in path else "?") + "limit=1000"))[name]
    assert len(whole) > 2 or name == "budgets"
    assert [each[key] for each in pages(stand, path, name)] == [each[key] for each in whole]


def test_requests_are_found_by_what_they_have_in_common_and_explained(stand):
    assert ask(stand.url, request(stand.key, chat())).status == 200
    (row, *_) = done(admin(stand, "GET", "/admin/requests?route=chat&outcome=complete&status=200&limit=1"))["requests"]
    for narrow in (f"model={row['model']}", f"key_id={row['key_id']}", "plan=pro", f"since_ms={row['started_ms']}"):
        assert row["id"] in {each["id"] for each in pages(stand, f"/admin/requests?{narrow}", "requests")}, narrow
    for narrow in (
        "model=none",
        "source=error",
        f"before_ms={row['started_ms'] - 10**9}",
        "status=500",
        "user_id=nobody",
    ):
        assert pages(stand, f"/admin/requests?{narrow}", "requests") == [], narrow
    told = done(admin(stand, "GET", f"/admin/requests/{row['id']}/explain"))
    assert (told["units"], told["charge"], told["reading"]["again"]["same"]) == (row["units"], row["charge"], True)
    refused(admin(stand, "GET", "/admin/requests/call_none/explain"), 404)


def test_revenue_adds_up_in_every_direction(stand):
    ask(stand.url, request(stand.key, chat()))
    for by in ("day", "plan", "model", "customer", "route"):
        told = done(admin(stand, "GET", f"/admin/revenue?by={by}"))
        assert sum(row["requests"] for row in told["rows"]) == told["total"]["requests"] > 0
        assert {each["plan"] for each in told["monthly"]} >= {"pro"}
    refused(admin(stand, "GET", "/admin/revenue?by=hour"))


def test_plans_and_routes_show_their_expressions_and_no_secret(stand):
    plan = done(admin(stand, "GET", "/admin/plans/pro"))
    assert (plan["monthly_price"], plan["customers"] > 0) == ("99", True)
    routes = admin(stand, "GET", "/admin/routes")
    assert b"sk-upstream-secret" not in routes.body
    chat_route = done(admin(stand, "GET", "/admin/routes/chat"))
    assert (chat_route["meter"]["text"], chat_route["upstream"]) == ("usage().total", "origin")
    assert chat_route["meter"]["hash"] == stand.records(1)[0].meter_hash
    refused(admin(stand, "GET", "/admin/plans/none"), 404)
    refused(admin(stand, "GET", "/admin/routes/none"), 404)


def test_the_doctor_is_asked_over_http(stand):
    told = done(admin(stand, "GET", "/admin/health"))
    assert told["ok"], told
    assert done(admin(stand, "GET", "/admin/health"))["checked_ms"] == told["checked_ms"]
    refused(admin(stand, "GET", "/admin/health?days=0"))


def test_outbox_and_notifications_are_shown(stand):
    told = done(admin(stand, "GET", "/admin/outbox?state=waiting"))
    assert (told["batches"], told["next"]) == ([], None)
    assert told["backlog"]["dead"] == 0
    assert done(admin(stand, "POST", "/admin/outbox/retry", {})) == {"changed": 0}
    assert done(admin(stand, "GET", "/admin/notifications")) == {"targets": [], "next": None}
    assert done(admin(stand, "GET", "/admin/notifications/deliveries?state=dead"))["deliveries"] == []
    assert done(admin(stand, "POST", "/admin/notifications/deliveries/retry", {})) == {"retried": 0}
    for path in ("/admin/outbox/none", "/admin/notifications/events/none"):
        refused(admin(stand, "GET", path), 404)
        refused(admin(stand, "POST", f"{path}/retry", {}), 404)


def test_a_gateway_without_a_file_says_so(stand):
    assert done(admin(stand, "GET", "/admin/config"))["file"] is None
    refused(admin(stand, "POST", "/admin/config/validate", {"text": "x"}), 409)
    refused(admin(stand, "POST", "/admin/config/reload", {}), 409)


LISTS = [
    "/admin/customers?find={}", "/admin/customers?plan={}", "/admin/customers?after={}", "/admin/keys?after={}",
    "/admin/customers/{}", "/admin/customers/{}/keys", "/admin/customers/{}/usage", "/admin/keys/{}",
    "/admin/requests?customer_id={}", "/admin/requests?key_id={}", "/admin/requests?user_id={}",
    "/admin/requests?model={}",
    "/admin/requests?route={}", "/admin/requests?plan={}", "/admin/requests?agent_id={}", "/admin/requests/{}",
    "/admin/requests/{}/explain", "/admin/plans/{}", "/admin/routes/{}", "/admin/outbox?customer_id={}",
    "/admin/outbox/{}",
    "/admin/notifications/deliveries?target={}", "/admin/notifications/deliveries?event={}",
    "/admin/notifications/events/{}", "/admin/spend?scope=customer&subject={}", "/admin/spikes?customer={}",
    "/admin/budgets?scope=customer&subject={}",
]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_what_looks_like_sql_is_a_text_like_any_other(stand, path):
    answer = admin(stand, "GET", path.format(quote(SQL, safe="")))
    assert answer.status in (200, 404), answer
    if answer.status == 200:
        found = json.loads(answer.body)
        assert all(not value for name, value in found.items() if isinstance(value, list)), found


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("text", ["%00", "a%00b", "%ED%A0%80", "%FF%FE", "x" * 3_000])
def test_what_is_no_text_is_refused_or_found_nowhere(stand, path, text):
    answer = admin(stand, "GET", path.format(text))
    assert answer.status in (200, 400, 404, 431), answer
    assert answer.status == 400 or "%00" not in text


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=٣", f"limit={'9' * 400}", "limit=1e3", "limit=",
     f"limit={'0' * 19}1{'0' * 6}", f"limit={'0' * 5000}1"],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/admin/customers", "/admin/keys", "/admin/requests", "/admin/outbox", "/admin/revenue"]
)
def test_a_page_that_is_too_large_or_none_is_refused(stand, path, query):
    assert "limit" in refused(admin(stand, "GET", f"{path}?{quote(query, safe='=')}"))


@pytest.mark.parametrize(
    "query",
    [
        "start=2026-02-30", "start=yesterday", "start=2026-01-01&end=2025-01-01", "start=0001-01-01", "end=9999-12-31",
        "start=2020-01-01&end=2026-01-01", "period=all", "period=current_month&start=2026-01-01", "start=%00",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/admin/revenue", "/admin/spend", "/admin/customers/acme/usage"])
def test_a_day_that_is_none_is_refused(stand, path, query):
    refused(admin(stand, "GET", f"{path}?{query}"))


@pytest.mark.parametrize(
    "query",
    ["status=99", "status=abc", "status=600", "outcome=fine", "source=x", "since_ms=-1", "since_ms=x", "before_ms=1e9",
     f"before_ms={'9' * 30}", "after=x", "after=-", f"after={'9' * 40}-x"],
)  # fmt: skip
def test_a_filter_that_cannot_be_is_refused(stand, query):
    refused(admin(stand, "GET", f"/admin/requests?{query}"))


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'"x"', b"{", b"\xff", b'{"name": "\\ud800"}', b'{"name": "a\\u0000b"}', b'{"name": 1}',
     b'{"name": ""}',
     b'{"name": "\\u0007"}', b'{"name": "' + b"x" * 201 + b'"}', b'{"name": "x", "id": "../x"}', b"[" * 5_000, b""],
)  # fmt: skip
def test_a_body_that_cannot_be_a_customer_is_refused(stand, body):
    refused(admin(stand, "POST", "/admin/customers", body))


def test_a_body_without_end_is_refused(stand):
    refused(admin(stand, "POST", "/admin/customers", b'{"name": "' + b"x" * 1_100_000 + b'"}'), 413)


def test_what_json_cannot_say_is_shown_all_the_same():

    odd = {"usage": {"input": 10**30}, "evidence": {"text": "\ud83d"}}
    assert json.loads(json_answer(odd).body) == odd
