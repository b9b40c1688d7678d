"""Limits of two scopes, and caps that wait for the billing period: declared, set, hit, shown and reset."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, PLANS, ROUTES, Stand, running

from gatekeeper.rules.diagnosis import all_well, diagnose
from gatekeeper.rules.windows import DAY_MS

DECLARED = (
    ROUTES
    + """
[[limits]]
name = "strong-model"
scope = "user,model"
subject = "each,gpt-4o"
requests = 2
window = "day"
[[limits]]
name = "ann-may-more"
scope = "user,model"
subject = "paired/ann,gpt-4o"
requests = 3
window = "day"
[[limits]]
name = "key-on-chat"
scope = "key,route"
requests = 1_000
window = "month"
[[limits]]
name = "daily"
scope = "customer"
subject = "latched"
requests = 2
window = "day"
release = "billing_period"
[[rates]]
name = "agents-by-model"
scope = "agent,model"
requests = 1
per = "hour"
"""
)


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


TEAM = """
monthly_price = 9
[[limits]]
name = "strong-of-team"
scope = "agent,model"
subject = "each,gpt-4o"
requests = 1
window = "day"
[[limits]]
name = "others-of-team"
scope = "agent,model"
requests = 2
window = "day"
[[rates]]
name = "crawlers"
scope = "agent"
subject = "crawler"
requests = 1
per = "hour"
"""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("pairs"), says_hi, routes=DECLARED, plans=PLANS) as found:
        yield found


def admin(stand: Stand, method: str, path: str, body: Any = None) -> Answer:
    text = b"" if body is None else json.dumps(body).encode()
    return ask(stand.url, request(None, text, method=method, path=path, headers={"X-Admin-Key": ADMIN_KEY}), method)


def done(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def customer(stand: Stand, name: str, plan: str = "pro") -> str:
    done(admin(stand, "POST", "/admin/customers", {"name": name, "id": name, "plan": plan}), 201)
    return stand.make_key(name, may_assert=True)


def call(stand: Stand, key: str, model: str = "gpt-4o", **who: str) -> Answer:
    headers = {f"X-{name.capitalize()}-Id": value for name, value in who.items()}
    return ask(stand.url, request(key, chat(model=model, max_tokens=4), headers=headers))


def well(stand: Stand, now_ms: int) -> bool:
    return all_well(diagnose(stand.run(stand.house.store.figures(0, now_ms)), now_ms, 100))


def budget(stand: Stand, name: str, query: str = "") -> dict[str, Any]:
    rows = done(admin(stand, "GET", f"/admin/budgets{query}"))["budgets"]
    (row,) = [row for row in rows if row["name"] == name]
    found: dict[str, Any] = row
    return found


def test_each_user_has_so_many_of_one_model_and_all_he_wants_of_another(stand):
    key = customer(stand, "paired")
    assert [call(stand, key, user="bob").status for _ in range(3)] == [200, 200, 402]
    assert call(stand, key, "gpt-4o-mini", user="bob").status == 200
    assert [call(stand, key, user="ann").status for _ in range(4)] == [200, 200, 200, 402]
    refused = call(stand, key, user="bob")
    limit = refused.error["limit"]
    assert (limit["name"], limit["scope"], limit["used"], limit["cap"]) == ("strong-model", "user,model", "2", "2")
    assert 0 < int(refused.header("retry-after") or 0) <= DAY_MS // 1000
    # Who is nobody's user meets none of it.
    assert call(stand, key).status == 200
    rows = done(admin(stand, "GET", "/admin/budgets?scope=user,model&subject=paired/bob,gpt-4o"))["budgets"]
    assert [(row["name"], row["state"]["used"], row["state"]["remaining"]) for row in rows] == [
        ("strong-model", "2", "0")
    ]
    rows = done(admin(stand, "GET", "/admin/budgets?scope=user,model&subject=paired/ann,gpt-4o"))["budgets"]
    assert [(row["name"], row["state"]["used"]) for row in rows] == [("ann-may-more", "3")]
    assert budget(stand, "ann-may-more")["state"]["remaining"] == "0"
    own = ask(
        stand.url,
        request(key, method="GET", path="/v1/budget?route=chat&model=gpt-4o", headers={"X-User-Id": "bob"}),
        "GET",
    )
    shown = {row["name"]: row["remaining"] for row in json.loads(own.body)["limits"]}
    assert shown["strong-model"] == "0"


def test_a_rate_of_a_pair_keeps_each_agent_to_its_own_on_each_model(stand):
    key = customer(stand, "agents")
    assert call(stand, key, agent="one").status == 200
    assert call(stand, key, agent="one").status == 429
    assert call(stand, key, "gpt-4o-mini", agent="one").status == 200
    assert call(stand, key, agent="two").status == 200


def test_a_plan_limits_one_model_of_each_agent_by_its_name(tmp_path):
    with running(tmp_path, says_hi, routes=ROUTES, plans={**PLANS, "plans/team.toml": TEAM}) as stand:
        key = customer(stand, "team", "team")
        assert [call(stand, key, agent="one").status for _ in range(2)] == [200, 402]
        assert [call(stand, key, "gpt-4o-mini", agent="one").status for _ in range(3)] == [200, 200, 402]
        assert call(stand, key, agent="two").status == 200
        refused = call(stand, key, agent="one").error["limit"]
        assert (refused["name"], refused["scope"], refused["cap"]) == ("strong-of-team", "agent,model", "1")
        # An agent of that name, of whichever customer, is held back by the hour; nobody else is.
        assert [call(stand, key, f"m{number}", agent="crawler").status for number in range(2)] == [200, 429]
        # Another plan knows nothing of it.
        other = customer(stand, "other")
        assert [call(stand, other, agent="one").status for _ in range(2)] == [200, 200]
        shown = done(admin(stand, "GET", "/admin/plans/team"))
        assert [(row["name"], row["subject"]) for row in shown["limits"]] == [
            ("strong-of-team", "each,gpt-4o"),
            ("others-of-team", "each"),
        ]
        assert [(row["scope"], row["subject"]) for row in shown["rates"]] == [("agent", "crawler")]
        assert budget(stand, "strong-of-team")["subject"] == "each,gpt-4o"
        rows = done(admin(stand, "GET", "/admin/budgets?scope=agent,model&subject=team/one,gpt-4o"))["budgets"]
        assert [(row["name"], row["state"]["used"]) for row in rows] == [("strong-of-team", "1")]
        found = stand.run(stand.house.store.customer("team"))
        assert well(stand, found.anchor_ms + 60_000)


def test_an_operator_sets_a_pair_resets_it_and_takes_it_away(stand):
    key = customer(stand, "set")
    wish = {"scope": "customer,model", "subject": "set,gpt-4o", "dimension": "requests", "window": "day", "cap": "1"}
    made = done(admin(stand, "POST", "/admin/budgets", wish), 201)
    assert (made["scope"], made["subject"], made["release"]) == ("customer,model", "set,gpt-4o", "window")
    assert [call(stand, key).status for _ in range(2)] == [200, 402]
    assert call(stand, key, "gpt-4o-mini").status == 200
    done(admin(stand, "POST", f"/admin/budgets/{made['id']}/reset"))
    assert [call(stand, key).status for _ in range(2)] == [200, 402]
    # A default of it: each model of each customer.
    each = done(admin(stand, "POST", "/admin/budgets", {**wish, "subject": "each,o1", "cap": "0"}), 201)
    assert (each["state"], call(stand, key, "o1").status) == (None, 402)
    assert admin(stand, "POST", f"/admin/budgets/{each['id']}/reset", {"subject": "set"}).status == 400
    for row in (made, each):
        done(admin(stand, "DELETE", f"/admin/budgets/{row['id']}"))
    assert call(stand, key).status == 200


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scope": "model,user"}, "write 'user,model'"),
        ({"scope": "customer,user"}, "alone says the same"),
        ({"subject": "alice"}, "counts pairs"),
        ({"subject": "each,each"}, "counts pairs"),
        ({"subject": "ann smith,gpt-4o"}, "no name of a user"),
        ({"subject": "nobody/ann,gpt-4o"}, "There is no customer"),
        ({"scope": "route,model", "subject": "chatt,gpt-4o"}, "There is no route"),
        ({"scope": "route,model", "window": "billing_period"}, "has no customer"),
        ({"window": "month", "release": "billing_period"}, "per hour or day"),
        ({"mode": "warn", "release": "billing_period"}, "never closes"),
        ({"release": "never"}, "release is one of"),
    ],
)
def test_what_no_pair_can_be_is_said(stand, changes, said):
    wish = {"scope": "user,model", "dimension": "requests", "window": "day", "cap": "1", **changes}
    answer = admin(stand, "POST", "/admin/budgets", wish)
    assert answer.status == 400
    assert said in answer.body.decode()


def test_a_daily_cap_that_was_hit_is_closed_until_the_billing_period_turns_or_a_reset(stand):
    key = customer(stand, "latched")
    assert budget(stand, "daily")["state"]["closed_until_ms"] is None
    assert [call(stand, key).status for _ in range(2)] == [200, 200]
    refused = call(stand, key)
    assert (refused.status, refused.error["code"]) == (402, "quota_exceeded")
    assert "closed until the billing period turns" in refused.error["message"]
    found = stand.run(stand.house.store.customer("latched"))
    state = budget(stand, "daily")["state"]
    # A customer's first period: a month, which is more than a day.
    assert state["closed_until_ms"] - found.anchor_ms > 27 * DAY_MS
    assert refused.error["limit"]["resets_ms"] == state["closed_until_ms"]
    assert int(refused.header("retry-after") or 0) > 27 * DAY_MS // 1000 - 60
    assert (state["used"], state["remaining"]) == ("2", "0")
    own = json.loads(ask(stand.url, request(key, method="GET", path="/v1/budget"), "GET").body)
    assert {row["name"]: row["resets_ms"] for row in own["limits"]}["daily"] == state["closed_until_ms"]
    usage = json.loads(ask(stand.url, request(key, method="GET", path="/v1/usage"), "GET").body)
    assert [row["used"] for row in usage["limits"] if row["name"] == "daily"] == ["2"]
    row = budget(stand, "daily")
    assert row["release"] == "billing_period"
    reset = done(admin(stand, "POST", f"/admin/budgets/{row['id']}/reset"))
    assert (reset["state"]["closed_until_ms"], reset["state"]["used"]) == (None, "0")
    assert call(stand, key).status == 200
    assert well(stand, found.anchor_ms + 60_000)


def test_an_operator_says_that_a_cap_is_to_wait_and_that_it_is_not(stand):
    key = customer(stand, "waits")
    wish = {"scope": "customer", "subject": "waits", "dimension": "requests", "window": "hour", "cap": "1"}
    made = done(admin(stand, "POST", "/admin/budgets", {**wish, "release": "billing_period"}), 201)
    assert [call(stand, key).status for _ in range(2)] == [200, 402]
    path = f"/admin/budgets/{made['id']}"
    assert done(admin(stand, "GET", path))["state"]["closed_until_ms"] is not None
    changed = done(admin(stand, "PATCH", path, {"release": "window"}))
    assert "closed_until_ms" not in changed["state"]
    # Now it is the hour alone that is used up.
    refused = call(stand, key)
    assert int(refused.header("retry-after") or 0) <= 3_600
    done(admin(stand, "PATCH", path, {"release": "billing_period", "cap": "2"}))
    assert [call(stand, key).status for _ in range(2)] == [200, 402]
    assert admin(stand, "PATCH", path, {"mode": "warn"}).status == 400
    done(admin(stand, "DELETE", path))


def test_who_calls_on_against_a_used_up_limit_is_let_in_at_once_when_it_grows_or_is_reset(stand):
    """What is known of it for a second is forgotten with the change."""
    key = customer(stand, "storm")
    wish = {"scope": "customer", "subject": "storm", "dimension": "requests", "window": "day", "cap": "1"}
    made = done(admin(stand, "POST", "/admin/budgets", wish), 201)
    path = f"/admin/budgets/{made['id']}"
    assert [call(stand, key).status for _ in range(10)] == [200, *[402] * 9]
    done(admin(stand, "PATCH", path, {"cap": "2"}))
    assert [call(stand, key).status for _ in range(3)] == [200, 402, 402]
    done(admin(stand, "POST", f"{path}/reset"))
    assert [call(stand, key).status for _ in range(4)] == [200, 200, 402, 402]
    done(admin(stand, "DELETE", path))
    assert call(stand, key).status == 200
