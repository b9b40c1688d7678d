"""Every URL of the application and every kind of caller: who gets in, from one table. A route that is not in the table
fails, so whoever adds one says here who may use it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.callers import Callers, Headers
from fakes.origin import Asked, Line
from fakes.raw import Client, request
from fakes.stand import Stand, running
from starlette.routing import Route

# For anybody at all; whatever it asks for itself (a signature, a password, a key of a customer) is tested elsewhere.
OPEN = """
GET /healthz
GET /metrics
GET /readyz
GET /v1/usage
GET /v1/models
GET /v1/budget
GET /v1/spend
GET /v1/requests/{call_id}
POST /webhooks/stripe
POST /webhook/stripe
POST /v1/webhooks/stripe
POST /api/webhooks/stripe
GET /admin/openapi.json
GET /dashboard/static/{name:path}
GET /dashboard/login
GET /dashboard/first
GET /portal/login
GET /portal/link
"""
# For anybody who comes from a page of ours, or from none.
DOORS = """
POST /auth/login
POST /dashboard/login
POST /dashboard/first
POST /portal/login
POST /portal/login/link
POST /portal/link
"""
# For whoever is signed in, operators and customers' people; operators who change something are admins.
EVERYBODY = """
POST /auth/logout
POST /auth/password
POST /auth/keys
DELETE /auth/keys/{key_id}
"""
VIEWERS = """
GET /admin/spend
GET /admin/spikes
GET /admin/budgets
GET /admin/budgets/{budget_id}
GET /admin/customers/{customer_id}/subscription
GET /admin/customers/{customer_id}/invoices
GET /admin/customers/{customer_id}/invoices/preview
GET /admin/customers
GET /admin/customers/{customer_id}
GET /admin/customers/{customer_id}/usage
GET /admin/customers/{customer_id}/people
GET /admin/keys
GET /admin/customers/{customer_id}/keys
GET /admin/keys/{key_id}
GET /admin/plans
GET /admin/plans/{plan_id}
GET /admin/routes
GET /admin/routes/{name}
GET /admin/requests
GET /admin/requests/{call_id}
GET /admin/requests/{call_id}/explain
GET /admin/revenue
GET /admin/outbox
GET /admin/outbox/{batch_id}
GET /admin/notifications
GET /admin/notifications/deliveries
GET /admin/notifications/events/{event_id}
GET /admin/config
GET /admin/health
POST /admin/expressions/check
GET /admin/audit
POST /admin/expressions/dry-run
POST /admin/expressions/evaluate
"""
ADMINS = """
POST /admin/budgets
PATCH /admin/budgets/{budget_id}
DELETE /admin/budgets/{budget_id}
POST /admin/budgets/{budget_id}/reset
POST /admin/customers/{customer_id}/checkout
POST /admin/customers/{customer_id}/portal
POST /admin/customers/{customer_id}/subscription
DELETE /admin/customers/{customer_id}/subscription
POST /admin/customers
PATCH /admin/customers/{customer_id}
DELETE /admin/customers/{customer_id}
POST /admin/customers/{customer_id}/keys
POST /admin/customers/{customer_id}/people
DELETE /admin/people/{person_id}
POST /admin/keys/{key_id}/rotate
DELETE /admin/keys/{key_id}
POST /admin/outbox/{batch_id}/retry
POST /admin/outbox/retry
POST /admin/notifications/deliveries/retry
POST /admin/notifications/events/{event_id}/retry
POST /admin/config/validate
"""
OWNERS = """
POST /admin/config/reload
GET /admin/operators
POST /admin/operators
GET /admin/operators/{operator_id}
PATCH /admin/operators/{operator_id}
DELETE /admin/operators/{operator_id}
POST /admin/operators/{operator_id}/link
"""
VIEWERS_PAGES = """
POST /dashboard/logout
GET /dashboard
GET /dashboard/
GET /dashboard/live
GET /dashboard/customers
GET /dashboard/customers/{customer_id}
GET /dashboard/customers/{customer_id}/usage
GET /dashboard/customers/{customer_id}/keys
GET /dashboard/customers/{customer_id}/billing
GET /dashboard/customers/{customer_id}/settings
GET /dashboard/budgets
GET /dashboard/budgets/{limit_id}
GET /dashboard/requests
GET /dashboard/requests/{call_id}
GET /dashboard/spikes
GET /dashboard/outbox
GET /dashboard/outbox/events
GET /dashboard/outbox/received
GET /dashboard/plans
GET /dashboard/plans/routes
GET /dashboard/health
POST /dashboard/health
GET /dashboard/audit
GET /playground/dry-run
POST /playground/dry-run
GET /playground
POST /playground
"""
ADMINS_PAGES = """
GET /dashboard/customers/new
POST /dashboard/customers/new
GET /dashboard/budgets/new
POST /dashboard/customers/{customer_id}/settings
POST /dashboard/customers/{customer_id}/plan
POST /dashboard/customers/{customer_id}/disable
POST /dashboard/customers/{customer_id}/enable
POST /dashboard/customers/{customer_id}/keys
POST /dashboard/customers/{customer_id}/keys/{key_id}/rotate
POST /dashboard/customers/{customer_id}/keys/{key_id}/revoke
POST /dashboard/budgets/new
POST /dashboard/budgets/{limit_id}
POST /dashboard/budgets/{limit_id}/remove
POST /dashboard/budgets/{limit_id}/reset
POST /dashboard/outbox/{batch_id}/retry
POST /dashboard/outbox/events/{event_id}/retry
POST /dashboard/outbox/received/{event_id}/retry
"""
OWNERS_PAGES = """
GET /dashboard/operators
POST /dashboard/operators
POST /dashboard/operators/{login_id}
POST /dashboard/operators/{login_id}/link
POST /dashboard/operators/{login_id}/disable
POST /dashboard/operators/{login_id}/enable
"""
# The pages of a customer's people, and their doors.
PORTAL_PAGES = """
POST /portal/logout
GET /portal/password
POST /portal/password
GET /portal
GET /portal/usage
GET /portal/usage.csv
GET /portal/keys
POST /portal/keys
POST /portal/keys/{key_id}/rotate
POST /portal/keys/{key_id}/revoke
GET /portal/plan
POST /portal/plan
POST /portal/plan/end
POST /portal/plan/resume
POST /portal/billing
GET /portal/invoices
GET /portal/alerts
POST /portal/alerts
POST /portal/alerts/{alert_id}/drop
"""

IN, NO, FORBIDDEN, DOOR = "in", "401", "403", "to the sign-in page"
_UNKNOWN = (
    "nobody", "wrong admin key", "wrong admin key, owner's token", "customer's key", "ended session", "made-up session",
    "token without a signature", "token of another secret", "expired token", "disabled owner",
)  # fmt: skip
_PERSONS_CROSS = ("person, no csrf", "person from another site")
_CROSS = ("no csrf", "wrong csrf", "from another site", "fetched by another site")
_RANK = {"viewer": 0, "admin": 1, "owner": 2}


def api(least: str, safe: bool) -> dict[str, str]:
    """Who may ask the operators' API for what takes this role."""
    verdicts = {
        **dict.fromkeys(_UNKNOWN, NO),
        "admin key": IN,
        "person": FORBIDDEN,
        # His cookie is the portal's, which is none here.
        "person's page": NO,
        "owner at the portal": NO,
        **dict.fromkeys(_PERSONS_CROSS, NO),
        "person at the dashboard": FORBIDDEN,
        **dict.fromkeys(_CROSS, IN if safe else FORBIDDEN),
    }
    for role, rank in _RANK.items():
        verdicts[role] = verdicts[f"{role}'s page"] = IN if rank >= _RANK[least] else FORBIDDEN
    return verdicts


def page(least: str, safe: bool) -> dict[str, str]:
    """The same for pages of the dashboard: only a cookie opens them."""
    verdicts = {
        **dict.fromkeys(api(least, safe), DOOR),
        "person at the dashboard": DOOR,
        **dict.fromkeys(_CROSS, IN if safe else FORBIDDEN),
    }
    for role, rank in _RANK.items():
        verdicts[f"{role}'s page"] = IN if rank >= _RANK[least] else FORBIDDEN
    return verdicts


def portal_page(safe: bool) -> dict[str, str]:
    """For pages of a customer's people."""
    verdicts = {**dict.fromkeys(api("viewer", safe), DOOR), "person's page": IN}
    return {**verdicts, **dict.fromkeys(_PERSONS_CROSS, IN if safe else FORBIDDEN)}


def everybody(least: str) -> dict[str, str]:
    """For whoever is signed in."""
    verdicts = {
        **dict.fromkeys(_UNKNOWN, NO),
        **dict.fromkeys(("admin key", "person", "person's page", "person at the dashboard", "owner at the portal"), IN),
        **dict.fromkeys((*_CROSS, *_PERSONS_CROSS), FORBIDDEN),
    }
    for role, rank in _RANK.items():
        verdicts[role] = verdicts[f"{role}'s page"] = IN if rank >= _RANK[least] else FORBIDDEN
    return verdicts


def table() -> dict[tuple[str, str], dict[str, str]]:
    """(method, path) -> kind of caller -> verdict. Empty: for anybody."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for text, verdicts in (
        (OPEN, lambda safe: {}),
        (DOORS, lambda safe: dict.fromkeys((*_CROSS[2:], _PERSONS_CROSS[1]), FORBIDDEN)),
        (VIEWERS, lambda safe: api("viewer", safe)),
        (ADMINS, lambda safe: api("admin", safe)),
        (OWNERS, lambda safe: api("owner", safe)),
        (VIEWERS_PAGES, lambda safe: page("viewer", safe)),
        (ADMINS_PAGES, lambda safe: page("admin", safe)),
        (OWNERS_PAGES, lambda safe: page("owner", safe)),
        (PORTAL_PAGES, portal_page),
    ):
        for line in text.split("\n"):
            if line:
                method, path = line.split(" ")
                found[method, path] = verdicts(method == "GET")
    for line in EVERYBODY.strip().split("\n"):
        method, path = line.split(" ")
        found[method, path] = everybody("admin" if "keys" in path else "viewer")
    # The admin key has no password: nobody is asked for one.
    found["POST", "/auth/password"]["admin key"] = IN
    return found


async def says_nothing(asked: Asked, line: Line) -> None:
    await line.head(500, Content_Length="0")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("matrix"), says_nothing) as found:
        yield found


@pytest.fixture(scope="module")
def callers(stand: Stand) -> Callers:
    return Callers(stand)


def routes(stand: Stand) -> set[tuple[str, str]]:
    found = set()
    for route in stand.house.app.routes:
        if isinstance(route, Route) and route.methods:
            found |= {(method, route.path) for method in route.methods - {"HEAD"}}
        else:
            assert getattr(route, "path", None) == "/{path:path}", route
    return found


def test_every_route_stands_in_the_table_and_only_those(stand):
    known = set(table())
    assert routes(stand) - known == set(), "say in the table who may use these"
    assert known - routes(stand) == set(), "these are gone"


def test_every_kind_of_caller_has_its_verdict(callers):
    assert set(callers.kinds()) == set(api("viewer", True)) == set(page("viewer", True)) == set(portal_page(True))
    assert set(callers.kinds()) == set(everybody("viewer"))


def asks(stand: Stand, method: str, path: str, headers: Headers) -> str:
    is_page = path.startswith(("/dashboard", "/portal", "/playground"))
    sent = {"Content-Type": "application/x-www-form-urlencoded"} if is_page else {"Content-Type": "application/json"}
    body = b"" if method == "GET" or is_page else b"{}"
    with Client(stand.url) as client:
        client.send(request(None, body, method=method, path=path, headers={**sent, **headers}))
        # The head is enough: some answers never end.
        status, answered = client.head()
    found = dict(answered)
    location = found.get(b"location", b"").decode()
    assert status < 500 or status == 503, (method, path, status)
    if status == 303 and location.split("?")[0] in ("/dashboard/login", "/portal/login") and b"set-cookie" not in found:
        return DOOR
    return {401: NO, 403: FORBIDDEN}.get(status, IN)


def filled(path: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", value)
    return path.replace("{name:path}", "x")


def everything(stand: Stand) -> Any:
    """What there is of customers, keys and logins, but for when they were there last."""

    async def looked() -> list[str]:
        store = stand.house.store
        customers = await store.customers(limit=1000)
        keys = await store.keys(limit=1000)
        logins = [row for each in (None, "acme", "beta") for row in await store.logins(customer_id=each, limit=1000)]
        return [repr(row) for row in (*customers, *keys, *(row for row in logins if "gone" not in row.email))]

    return stand.run(looked())


@pytest.mark.parametrize("kind", [*api("viewer", True)])
def test_who_may_not_is_turned_away_and_changes_nothing(stand, callers, kind):
    beta = stand.run(stand.house.store.keys("beta"))
    if not beta:
        stand.make_key("beta")
        beta = stand.run(stand.house.store.keys("beta"))
    # What there is: a guard that came too late would be seen.
    ids = {
        "customer_id": "beta", "key_id": beta[0].id, "operator_id": callers.logins["viewer"].id, "plan_id": "pro",
        "login_id": callers.logins["viewer"].id, "person_id": callers.logins["beta"].id, "name": "chat",
        **dict.fromkeys(("budget_id", "limit_id", "call_id", "batch_id", "event_id"), "x"),
    }  # fmt: skip
    before, wrong = everything(stand), {}
    headers = callers.kinds()[kind]()
    for (method, path), verdicts in sorted(table().items()):
        wanted = verdicts.get(kind, IN)
        if wanted != IN:
            found = asks(stand, method, filled(path, ids), headers)
            if found != wanted:
                wrong[method, path] = (found, wanted)
    assert wrong == {}
    assert everything(stand) == before


@pytest.mark.parametrize("kind", [*api("viewer", True)])
def test_who_may_gets_in(stand, callers, kind):
    # Nothing that there is: getting in is enough.
    nothing = {"customer_id", "key_id", "operator_id", "plan_id", "login_id", "person_id", "name", "budget_id"}
    nothing |= {"limit_id", "call_id", "batch_id", "event_id"}
    ids = dict.fromkeys(nothing, "nothing")
    wrong, make = {}, callers.kinds()[kind]
    for (method, path), verdicts in sorted(table().items()):
        if verdicts.get(kind) == IN:
            # A session for each: some of them end it.
            found = asks(stand, method, filled(path, ids), make())
            # What asks for a password says 401 for a wrong one.
            if found != IN and path != "/auth/password":
                wrong[method, path] = found
    assert wrong == {}


def test_a_person_of_one_customer_reaches_nothing_of_another(stand, callers):
    stand.make_key("beta")
    (key, *_) = stand.run(stand.house.store.keys("beta"))
    ids = {"key_id": key.id, "alert_id": "x"}

    def of_beta() -> list[str]:
        return [row for row in everything(stand) if "beta" in row]

    before, reached = of_beta(), []
    for method, path in sorted(table()):
        is_portal = path.startswith("/portal/") and "{" in path
        if not is_portal and path not in ("/auth/keys", "/auth/keys/{key_id}"):
            continue
        for headers in (callers.cookie("acme"), *([] if is_portal else [callers.token("acme")])):
            # What he may ask for, and whose it is said to be.
            body = (
                b"customer_id=beta&name=x&grace_hours=0" if is_portal else json.dumps({"customer_id": "beta"}).encode()
            )
            kind = "application/x-www-form-urlencoded" if is_portal else "application/json"
            sent = {**headers, "Content-Type": kind}
            with Client(stand.url) as client:
                client.send(request(None, body, method=method, path=filled(path, ids), headers=sent))
                answer = client.answer(method)
            if answer.status != 404:
                reached.append((method, path, answer.status))
    assert reached == []
    assert of_beta() == before
