"""Signing in by password, link, token and cookie; operators, the audit log and repeats, as they are over HTTP."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.callers import Callers
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, request
from fakes.stand import ADMIN_KEY, Stand, running

from gatekeeper.accounts import KEYS_MAX
from gatekeeper.ports.people import Role
from gatekeeper.web.gate import next_of

PASSWORD = "correct horse battery"
ADMIN = {"X-Admin-Key": ADMIN_KEY}


async def says_nothing(asked: Asked, line: Line) -> None:
    await line.head(500, Content_Length="0")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("people"), says_nothing) as found:
        yield found


@pytest.fixture(scope="module")
def callers(stand: Stand) -> Callers:
    return Callers(stand)


def call(stand: Stand, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    text = b"" if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(stand.url, request(None, text, method=method, path=path, headers=named), method)


def form(stand: Stand, path: str, fields: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Content-Type"] = "application/x-www-form-urlencoded"
    return ask(stand.url, request(None, fields.encode(), path=path, headers=named))


def done(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def signed_up(stand: Stand, email: str, role: Role = Role.ADMIN) -> str:
    """A new operator with a password; returns his id."""

    async def made() -> str:
        login = await stand.house.operators.add(email, role)
        await stand.house.signins.set_password(login, PASSWORD)
        return login.id

    found: str = stand.run(made())
    return found


def signed_in(stand: Stand, email: str, password: str = PASSWORD) -> Answer:
    return call(stand, "POST", "/auth/login", {"email": email, "password": password})


def deeds(stand: Stand, **query: str) -> list[dict[str, Any]]:
    text = "&".join(f"{name}={value.replace('@', '%40').replace(' ', '%20')}" for name, value in query.items())
    found: list[dict[str, Any]] = done(call(stand, "GET", f"/admin/audit?{text}", **ADMIN))["deeds"]
    return found


def test_a_password_opens_a_token_and_signing_out_ends_it(stand):
    signed_up(stand, "token@example.org")
    made = done(signed_in(stand, " Token@Example.org"))
    assert (made["role"], made["customer_id"]) == ("admin", None)
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert call(stand, "GET", "/admin/customers", **bearer).status == 200
    assert call(stand, "GET", "/admin/operators", **bearer).error["code"] == "not_permitted"
    done(call(stand, "POST", "/auth/logout", {}, **bearer))
    answer = call(stand, "GET", "/admin/customers", **bearer)
    assert (answer.status, answer.error["code"]) == (401, "not_signed_in")


def test_nobody_is_told_who_exists(stand):
    signed_up(stand, "known@example.org")
    disabled = signed_up(stand, "away@example.org")
    done(call(stand, "PATCH", f"/admin/operators/{disabled}", {"disabled": True}, **ADMIN))
    stand.run(stand.house.operators.add("linkonly@example.org", Role.VIEWER))
    told = set()
    for email, password in (
        ("known@example.org", "wrong"),
        ("unknown@example.org", "wrong"),
        ("away@example.org", PASSWORD),
        ("linkonly@example.org", ""),
        ("linkonly@example.org", "wrong"),
        ("the first owner", "wrong"),
        ("not an address", "wrong"),
    ):
        answer = signed_in(stand, email, password or "x")
        told.add((answer.status, answer.body, tuple(name for name, _ in answer.headers)))
    assert len(told) == 1, told
    stand.run(stand.house.store.pardon(stand.run(_names_of_this_machine()), []))


async def _names_of_this_machine() -> list[str]:
    from gatekeeper.people.signins import digest_of

    return [digest_of("address:127.0.0.1")]


def test_who_guesses_is_kept_out_known_or_not_even_with_the_right_password(stand):
    signed_up(stand, "guessed@example.org")
    for email in ("guessed@example.org", "nobodys@example.org"):
        answers = [signed_in(stand, email, f"wrong {number}") for number in range(7)]
        assert [answer.status for answer in answers] == [401] * 5 + [429] * 2
        assert answers[-1].error["code"] == "rate_limited"
        assert 1 <= int(answers[-1].header("retry-after")) <= 2
        assert signed_in(stand, email).status == 429
    stand.run(stand.house.store.pardon(stand.run(_names_of_this_machine()), []))


def test_a_new_password_ends_every_session_token_and_link(stand):
    login_id = signed_up(stand, "changes@example.org")
    token = {"Authorization": f"Bearer {done(signed_in(stand, 'changes@example.org'))['token']}"}

    async def more() -> tuple[str, str]:
        login = await stand.house.store.login(login_id)
        assert login is not None
        return (await stand.house.signins.begin(login))[0], await stand.house.signins.make_link(login)

    cookie, link = stand.run(more())
    page = {"Cookie": f"gatekeeper-dashboard={cookie}"}
    assert call(stand, "GET", "/admin/customers", **page).status == 200
    wrong = call(stand, "POST", "/auth/password", {"old": "wrong", "new": "another horse battery"}, **token)
    assert (wrong.status, wrong.error["code"]) == (401, "wrong_password")
    short = call(stand, "POST", "/auth/password", {"old": PASSWORD, "new": "short"}, **token)
    assert short.status == 400
    done(call(stand, "POST", "/auth/password", {"old": PASSWORD, "new": "another horse battery"}, **token))
    for headers in (token, page):
        assert call(stand, "GET", "/admin/customers", **headers).status == 401
    assert stand.run(stand.house.signins.look_at_link(link)) is None
    assert signed_in(stand, "changes@example.org").status == 401
    done(signed_in(stand, "changes@example.org", "another horse battery"))
    told = json.dumps(deeds(stand, subject=login_id))
    assert "horse" not in told


def test_the_dashboard_is_signed_in_to_with_a_cookie_that_scripts_cannot_read(stand):
    signed_up(stand, "page@example.org")
    away = call(stand, "GET", "/dashboard/customers?limit=2")
    assert (away.status, away.header("location")) == (303, "/dashboard/login?next=%2Fdashboard%2Fcustomers%3Flimit%3D2")
    shown = call(stand, "GET", "/dashboard/login?next=/dashboard/customers")
    assert b'value="/dashboard/customers"' in shown.body
    wrong = form(stand, "/dashboard/login", "email=page%40example.org&password=wrong")
    assert wrong.status == 401
    assert b"page@example.org" in wrong.body and b"wrong</" not in wrong.body
    fields = "email=page%40example.org&password=correct+horse+battery&next=/dashboard/customers"
    before = "gatekeeper-dashboard=" + "A" * 43
    answer = form(stand, "/dashboard/login", fields, Cookie=before)
    assert (answer.status, answer.header("location")) == (303, "/dashboard/customers")
    cookie = answer.header("set-cookie")
    assert re.fullmatch(r"gatekeeper-dashboard=[A-Za-z0-9_-]{43}; HttpOnly; Path=/; SameSite=lax", cookie), cookie
    assert "A" * 43 not in cookie
    mine = {"Cookie": cookie.partition(";")[0]}
    assert call(stand, "GET", "/dashboard/login?next=//evil.example", **mine).header("location") == "/dashboard"
    page = call(stand, "GET", "/dashboard/customers", **mine)
    assert page.status == 200
    (csrf,) = set(re.findall(rb"[0-9a-f]{64}", page.body))
    assert form(stand, "/dashboard/logout", "", **mine).status == 403
    out = form(stand, "/dashboard/logout", f"csrf={csrf.decode()}", **mine)
    assert (out.status, out.header("location")) == (303, "/dashboard/login")
    assert "Max-Age=0" in out.header("set-cookie")
    assert call(stand, "GET", "/dashboard/customers", **mine).status == 303


def test_over_https_the_cookie_is_bound_to_the_host(tmp_path):
    with running(tmp_path, says_nothing, server='public_url = "https://llm.example.com"') as stand:
        signed_up(stand, "o@example.org", Role.OWNER)
        fields = "email=o%40example.org&password=correct+horse+battery"
        answer = form(stand, "/dashboard/login", fields, Origin="https://llm.example.com")
        cookie = answer.header("set-cookie")
        assert cookie.startswith("__Host-gatekeeper-dashboard=")
        assert cookie.endswith("; HttpOnly; Path=/; SameSite=lax; Secure")
        value = cookie.partition(";")[0].partition("=")[2]
        # A cookie that a subdomain or plain http could have set is none.
        assert call(stand, "GET", "/dashboard", Cookie=f"gatekeeper-dashboard={value}").status == 303
        assert call(stand, "GET", "/dashboard", Cookie=f"__Host-gatekeeper-dashboard={value}").status == 200
        made = done(call(stand, "POST", "/admin/operators", {"email": "n@example.org", "role": "viewer"}, **ADMIN), 201)
        assert made["link"].startswith("https://llm.example.com/dashboard/first?link=")


def test_the_first_owner_comes_by_a_link_that_works_once(tmp_path):
    with running(tmp_path, says_nothing) as stand:
        first = stand.house.operators.first_link
        old, secret = stand.run(first()), stand.run(first())
        assert done(call(stand, "GET", "/admin/operators", **ADMIN))["operators"] == []
        # A link that was replaced, and one that never was.
        for wrong in (old, "A" * 43, "", "%00", "x" * 5000):
            answer = call(stand, "GET", f"/dashboard/first?link={wrong}")
            assert answer.status in (303, 400) and answer.header("set-cookie") is None
        assert call(stand, "GET", "/dashboard/first").status == 404
        # Looking at it uses nothing up, and takes it out of the URL.
        for _ in range(2):
            answer = call(stand, "GET", f"/dashboard/first?link={secret}")
            assert (answer.status, answer.header("location")) == (303, "/dashboard/first")
        cookie = {"Cookie": answer.header("set-cookie").partition(";")[0]}
        assert "HttpOnly" in answer.header("set-cookie") and "Path=/dashboard/first" in answer.header("set-cookie")
        shown = call(stand, "GET", "/dashboard/first", **cookie)
        assert shown.status == 200 and secret.encode() not in shown.body
        for fields in ("email=o%40example.org&password=short&again=short", "email=o%40example.org&password=" + "p" * 20,
                       "email=nobody&password=correct+horse+battery&again=correct+horse+battery"):  # fmt: skip
            assert form(stand, "/dashboard/first", fields, **cookie).status == 400
        fields = "email=O%40example.org&password=correct+horse+battery&again=correct+horse+battery"
        # Somebody else's address uses nothing up either.
        done(call(stand, "POST", "/admin/operators", {"email": "taken@example.org", "role": "viewer"}, **ADMIN), 201)
        taken = form(stand, "/dashboard/first", fields.replace("O%40", "taken%40"), **cookie)
        assert (taken.status, b"has that email" in taken.body) == (409, True)
        evil = form(stand, "/dashboard/first", fields, Origin="https://evil.example", **cookie)
        assert (evil.status, form(stand, "/dashboard/first", fields).status) == (403, 404)
        made = form(stand, "/dashboard/first", fields, **cookie)
        assert (made.status, made.header("location")) == (303, "/dashboard")
        assert form(stand, "/dashboard/first", fields, **cookie).status == 404
        assert stand.run(first()) is None
        operators = done(call(stand, "GET", "/admin/operators", **ADMIN))["operators"]
        (owner,) = [each for each in operators if each["email"] != "taken@example.org"]
        assert (owner["email"], owner["role"], owner["password"]) == ("o@example.org", "owner", True)
        assert done(signed_in(stand, "o@example.org"))["role"] == "owner"
        assert secret not in json.dumps(deeds(stand))


def test_operators_are_made_changed_and_taken_away_but_not_the_last_owner(stand, callers):
    owner = callers.token("owner")
    made = done(call(stand, "POST", "/admin/operators", {"email": "new@example.org", "role": "owner"}, **owner), 201)
    path = f"/admin/operators/{made['id']}"
    assert (
        call(stand, "POST", "/admin/operators", {"email": "NEW@example.org", "role": "viewer"}, **owner).status == 409
    )
    for body in ({"email": "x", "role": "owner"}, {"email": "y@example.org", "role": "king"}, {"role": "owner"}):
        assert call(stand, "POST", "/admin/operators", body, **owner).status == 400
    link = made["link"].rpartition("=")[2]
    login = stand.run(stand.house.signins.use_link(link))
    stand.run(stand.house.signins.set_password(login, PASSWORD))
    # The owner of the fixtures has no password, so this one is the only one who can sign in.
    for method, body in (("PATCH", {"role": "admin"}), ("PATCH", {"disabled": True}), ("DELETE", None)):
        answer = call(stand, method, path, body, **owner)
        assert (answer.status, answer.error["code"]) == (409, "conflict")
        assert "last owner" in answer.error["message"]
    other = signed_up(stand, "second-owner@example.org", Role.OWNER)
    answer = call(stand, "GET", path, **owner)
    tag = answer.header("etag")
    assert done(call(stand, "PATCH", path, {"role": "admin"}, **owner, If_Match=tag))["role"] == "admin"
    stale = call(stand, "PATCH", path, {"role": "viewer"}, **owner, If_Match=tag)
    assert (stale.status, stale.error["code"]) == (412, "conflict")
    assert call(stand, "DELETE", path, **owner, If_Match=tag).status == 412
    token = {"Authorization": f"Bearer {done(signed_in(stand, 'new@example.org'))['token']}"}
    assert done(call(stand, "DELETE", path, **owner))["disabled"]
    assert signed_in(stand, "new@example.org").status == 401
    assert call(stand, "GET", "/admin/customers", **token).status == 401
    states = [(deed["action"], deed["state"]) for deed in deeds(stand, subject=made["id"])]
    assert ("PATCH /admin/operators/{operator_id}", "refused") in states
    assert ("DELETE /admin/operators/{operator_id}", "done") in states
    text = json.dumps(deeds(stand))
    assert link not in text and "argon2" not in text
    assert "argon2" not in call(stand, "GET", "/admin/operators", **owner).body.decode()
    assert done(call(stand, "GET", f"/admin/operators/{other}", **owner))["role"] == "owner"


def test_a_create_that_is_sent_twice_is_done_once_and_its_secret_is_not_kept(stand, callers):
    owner = callers.token("owner")
    body, once = {"name": "twice"}, {"Idempotency-Key": "k-1"}
    path = "/admin/customers/acme/keys"
    first = call(stand, "POST", path, body, **owner, **once)
    again = call(stand, "POST", path, body, **owner, **once)
    made, told = done(first, 201), done(again)
    secret = made.pop("key")
    assert told == {**made, "shown_once": ["key"]}
    assert again.header("idempotent-replayed") == "true"
    other = call(stand, "POST", path, {"name": "else"}, **owner, **once)
    assert (other.status, other.error["code"]) == (422, "conflict")
    # Somebody else's key of that name is his own.
    assert done(call(stand, "POST", path, body, **ADMIN, **once), 201)["key"] != secret
    # What was refused may be tried again.
    wrong = {"Idempotency-Key": "k-2"}
    assert call(stand, "POST", path, {"name": "x" * 300}, **owner, **wrong).status == 400
    assert call(stand, "POST", path, {"name": "x"}, **owner, **wrong).status == 201
    for bad in ("", "x" * 256, "ä"):
        answer = call(stand, "POST", path, body, **owner, **{"Idempotency-Key": bad})
        assert answer.status == 400, bad
    for kind, asked in (
        ("/admin/customers", {"name": "c", "id": "once"}),
        ("/admin/operators", {"email": "once@example.org", "role": "viewer"}),
        ("/admin/customers/acme/people", {"email": "p-once@example.org"}),
        ("/admin/budgets", {"scope": "customer", "dimension": "units", "window": "day", "cap": 7}),
    ):
        answers = [call(stand, "POST", kind, asked, **owner, **{"Idempotency-Key": kind}) for _ in range(2)]
        assert answers[0].status == 201, answers[0]
        assert answers[1].header("idempotent-replayed") == "true"
        assert "link" not in json.loads(answers[1].body)
    held = stand.house.store._database  # what is on the disk, and not what we show of it
    from gatekeeper.stores.database import alone

    rows = stand.run(held.read(alone("deeds", before="~", limit=1000)))
    assert secret not in repr(rows)


def test_a_customers_person_makes_and_revokes_keys_of_his_own(stand, callers):
    person = callers.token("acme")
    made = done(call(stand, "POST", "/auth/keys", {"name": "mine"}, **person), 201)
    assert (made["customer_id"], made["key"][:3]) == ("acme", "gk_")
    assert call(stand, "POST", "/auth/keys", {"may_assert": True}, **person).status == 403
    assert call(stand, "POST", "/auth/keys", {}, **callers.token("admin")).status == 400
    assert call(stand, "POST", "/auth/keys", {"customer_id": "acme"}, **callers.token("viewer")).status == 403
    theirs = done(call(stand, "POST", "/auth/keys", {"customer_id": "beta"}, **callers.token("admin")), 201)
    assert call(stand, "DELETE", f"/auth/keys/{theirs['id']}", **person).status == 404
    assert done(call(stand, "DELETE", f"/auth/keys/{made['id']}", **person))["revoked_ms"] is not None
    (deed, *_) = deeds(stand, actor="acme@example.org")
    assert (deed["action"], deed["subject"], deed["state"]) == ("DELETE /auth/keys/{key_id}", made["id"], "done")
    assert made["key"] not in json.dumps(deeds(stand))


def test_a_customers_person_makes_no_more_keys_than_the_portal_lets_him(stand, callers):
    person, many = callers.token("beta"), [{"name": f"n{number}"} for number in range(KEYS_MAX)]
    path = "/admin/customers/beta/keys"
    for body in many:
        done(call(stand, "POST", path, body, **ADMIN), 201)
    assert call(stand, "POST", "/auth/keys", {}, **person).status == 409
    # An operator makes more, for whoever needs more.
    assert call(stand, "POST", path, {}, **ADMIN).status == 201
    assert call(stand, "POST", "/auth/keys", {"customer_id": "beta"}, **callers.token("admin")).status == 201


def test_the_audit_log_is_read_page_by_page(stand, callers):
    for number in range(3):
        call(stand, "POST", "/admin/customers", {"name": "x", "id": f"audit-{number}"}, **callers.token("admin"))
    page = done(call(stand, "GET", "/admin/audit?limit=2", **ADMIN))
    assert [deed["subject"] for deed in page["deeds"]] == ["audit-2", "audit-1"]
    more = done(call(stand, "GET", f"/admin/audit?limit=1&after={page['next']}", **ADMIN))
    (deed,) = more["deeds"]
    assert (deed["subject"], deed["actor"]) == ("audit-0", "admin@example.org")
    assert call(stand, "GET", "/admin/audit?limit=0", **ADMIN).status == 400


@pytest.mark.parametrize(
    "wrong",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/dashboard/../x", "/dashboard//evil", "/dashboards",
     "/portal", "javascript:alert(1)", "/dashboard\r\nX: y", "", "/dashboard/" + "x" * 2000],
)  # fmt: skip
def test_after_signing_in_nobody_is_sent_elsewhere(wrong):
    assert next_of(wrong, "/dashboard") == "/dashboard"
    assert next_of("/dashboard/customers?plan=pro", "/dashboard") == "/dashboard/customers?plan=pro"
