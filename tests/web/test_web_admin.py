"""The operator's API: customers and keys made, listed, changed, revoked; bad input is told and changes nothing."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, Stand, running


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("admin"), says_hi) as found:
        yield found


def admin(stand: Stand, method: str, path: str, body: Any = None, key: str | None = ADMIN_KEY) -> Answer:
    text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if key is None else {"X-Admin-Key": key}
    return ask(stand.url, request(None, text, method=method, path=path, headers=headers), method)


def done(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_a_customer_with_a_key_is_made_and_can_call(stand):
    made = done(admin(stand, "POST", "/admin/customers", {"name": "Büro", "plan": "pro", "id": "buero"}), 201)
    assert (made["id"], made["plan"], made["disabled"]) == ("buero", "pro", False)
    key = done(admin(stand, "POST", "/admin/customers/buero/keys", {"name": "first", "models": ["gpt-*"]}), 201)
    assert key["key"].startswith(key["shown"])
    assert ask(stand.url, request(key["key"], chat())).status == 200
    stand.records(1, "buero")
    listed = done(admin(stand, "GET", "/admin/customers/buero/keys"))["keys"]
    assert [row["id"] for row in listed] == [key["id"]]
    assert key["key"] not in json.dumps(listed)
    usage = done(admin(stand, "GET", "/admin/customers/buero/usage"))
    assert (usage["tokens_used"], usage["requests_count"], usage["estimated_cost"]) == (7, 1, "99")
    (row,) = done(admin(stand, "GET", "/admin/requests?customer_id=buero&limit=5"))["requests"]
    assert done(admin(stand, "GET", f"/admin/requests/{row['id']}"))["units"] == "7"
    assert "buero" in [each["id"] for each in done(admin(stand, "GET", "/admin/customers"))["customers"]]


def test_a_revoked_key_is_refused_within_a_second(stand):
    key = done(admin(stand, "POST", "/admin/customers/acme/keys", {}), 201)
    assert ask(stand.url, request(key["key"], chat())).status == 200
    for _ in range(2):
        assert done(admin(stand, "DELETE", f"/admin/keys/{key['id']}"))["revoked_ms"] is not None
    revoked_s = time.monotonic()

    async def refused() -> bool:
        import asyncio

        answer = await asyncio.to_thread(ask, stand.url, request(key["key"], chat()))
        return answer.status == 401

    stand.wait_until(refused, timeout_s=5)
    assert time.monotonic() - revoked_s < 1.3


def test_a_plan_is_changed_and_a_customer_disabled_and_enabled(stand):
    done(admin(stand, "POST", "/admin/customers", {"name": "C", "id": "changing"}), 201)
    path = "/admin/customers/changing"
    assert done(admin(stand, "PATCH", path, {"plan": "pro"}))["plan"] == "pro"
    assert done(admin(stand, "PATCH", path, {"disabled": True}))["disabled"]
    assert not done(admin(stand, "PATCH", path, {"disabled": False}))["disabled"]
    assert done(admin(stand, "GET", path))["plan"] == "pro"


def test_customers_are_listed_page_by_page(stand):
    for number in range(5):
        done(admin(stand, "POST", "/admin/customers", {"name": "P", "id": f"page-{number}"}), 201)
    found, after = [], "page-"
    while rows := done(admin(stand, "GET", f"/admin/customers?limit=2&after={after}"))["customers"]:
        found += [row["id"] for row in rows]
        after = found[-1]
    assert found[:5] == [f"page-{number}" for number in range(5)]


def test_plans_are_shown_as_declared(stand):
    plans = {plan["id"]: plan for plan in done(admin(stand, "GET", "/admin/plans"))["plans"]}
    assert (plans["pro"]["monthly_price"], plans["pro"]["quota"], plans["pro"]["overage_price"]) == (
        "99",
        "1000000",
        "0.001",
    )


@pytest.mark.parametrize("key", [None, "", "wrong", ADMIN_KEY + "x", ADMIN_KEY[:-1], "ä"])
@pytest.mark.parametrize("path", ["/admin/customers", "/admin/requests", "/admin/plans", "/admin/customers/acme/keys"])
def test_without_the_admin_key_nothing_is_told(stand, path, key):
    answer = admin(stand, "GET", path, key=key)
    assert (answer.status, answer.error["code"]) == (401, "admin_key_required")


def test_without_an_admin_key_in_the_configuration_the_api_is_off(tmp_path):
    with running(tmp_path, says_hi) as stand:
        from dataclasses import replace

        stand.house.live.gateway = replace(stand.house.live.gateway, admin_key=None)
        for key in (None, "", ADMIN_KEY, "None"):
            answer = admin(stand, "GET", "/admin/customers", key=key)
            assert (answer.status, answer.error["code"]) == (401, "admin_key_required")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/admin/customers", b"{", 400),
        ("POST", "/admin/customers", b"[]", 400),
        ("POST", "/admin/customers", b"[" * 100_000, 400),
        ("POST", "/admin/customers", b"x" * 1_100_000, 413),
        ("POST", "/admin/customers", {}, 400),
        ("POST", "/admin/customers", {"name": ""}, 400),
        ("POST", "/admin/customers", {"name": 7}, 400),
        ("POST", "/admin/customers", {"name": "a\0b"}, 400),
        ("POST", "/admin/customers", {"name": "x" * 201}, 400),
        ("POST", "/admin/customers", {"name": "x", "plan": "gold"}, 400),
        ("POST", "/admin/customers", {"name": "x", "email": "no"}, 400),
        ("POST", "/admin/customers", {"name": "x", "email": "a\0@b"}, 400),
        ("POST", "/admin/customers", {"name": "x", "id": "../x"}, 400),
        ("POST", "/admin/customers", {"name": "x", "id": "acme"}, 409),
        ("POST", "/admin/customers", {"name": "x", "nmae": "y"}, 400),
        ("PATCH", "/admin/customers/acme", {"plan": 7}, 400),
        ("PATCH", "/admin/customers/acme", {"disabled": "yes"}, 400),
        ("PATCH", "/admin/customers/nobody", {}, 404),
        ("GET", "/admin/customers/nobody", None, 404),
        ("GET", "/admin/customers/%00", None, 400),
        ("GET", "/admin/customers?after=%00", None, 400),
        ("GET", "/admin/customers?limit=0", None, 400),
        ("GET", "/admin/customers?limit=%C2%B2", None, 400),
        ("GET", "/admin/customers?limit=99999999999999999999999", None, 400),
        ("GET", "/admin/requests?before_ms=%C2%B2", None, 400),
        ("GET", "/admin/requests?before_ms=99999999999999999999999", None, 400),
        ("GET", "/admin/requests?before_ms=-1", None, 400),
        ("GET", "/admin/requests/none", None, 404),
        ("GET", "/admin/customers/acme/usage?period=x", None, 400),
        ("POST", "/admin/customers/nobody/keys", {}, 404),
        ("POST", "/admin/customers/acme/keys", {"expires_ms": 1}, 400),
        ("POST", "/admin/customers/acme/keys", {"expires_ms": True}, 400),
        ("POST", "/admin/customers/acme/keys", {"expires_ms": 2**64 - 1}, 400),
        ("POST", "/admin/customers/acme/keys", {"expires_ms": 2**70}, 400),
        ("POST", "/admin/customers/acme/keys", {"routes": ["caht"]}, 400),
        ("POST", "/admin/customers/acme/keys", {"routes": "chat"}, 400),
        ("POST", "/admin/customers/acme/keys", {"models": ["a\0"]}, 400),
        ("POST", "/admin/customers/acme/keys", {"models": ["m"] * 101}, 400),
        ("POST", "/admin/customers/acme/keys", {"user_id": "a b"}, 400),
        ("DELETE", "/admin/keys/nobody", None, 404),
    ],
)
def test_bad_input_is_told_and_changes_nothing(stand, method, path, body, status):
    def all_there_is() -> tuple[Any, Any]:
        return stand.run(stand.house.store.customers(limit=1000)), stand.run(stand.house.store.keys("acme", limit=1000))

    before = all_there_is()
    answer = admin(stand, method, path, body)
    assert answer.status == status, answer
    assert answer.error["message"]
    assert all_there_is() == before


def test_what_no_database_takes_is_told_on_postgres_too(tmp_path, postgres_url):
    with running(tmp_path, says_hi, database_url=postgres_url) as stand:
        for path in ("/admin/customers/%00", "/admin/customers?after=%00", "/admin/requests?customer_id=%00"):
            assert admin(stand, "GET", path).status == 400
        answer = ask(stand.url, request(stand.key, method="GET", path="/v1/requests/%00"), "GET")
        assert answer.status == 400
