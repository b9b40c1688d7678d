"""The dashboard's pages as HTTP: what they show, what their forms change, and that hostile texts do nothing."""

import json
import re
from collections.abc import Iterator

import pytest
from fakes.callers import Callers
from fakes.origin import Asked, Line
from fakes.raw import Client, ask, chat, completion, request
from fakes.stand import Stand, running
from pages_visitor import Visitor, words

HOSTILE = "\"><script>alert('x')</script>&{{7*7}}"
ONE = "/dashboard/customers/acme"


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("dashboard"), says_hi) as found:
        yield found


@pytest.fixture(scope="module")
def callers(stand: Stand) -> Callers:
    return Callers(stand)


@pytest.fixture(scope="module")
def admin(stand: Stand, callers: Callers) -> Visitor:
    return Visitor(stand, callers.cookie("admin"))


@pytest.fixture(scope="module")
def owner(stand: Stand, callers: Callers) -> Visitor:
    return Visitor(stand, callers.cookie("owner"))


@pytest.fixture(scope="module")
def viewer(stand: Stand, callers: Callers) -> Visitor:
    return Visitor(stand, callers.cookie("viewer"))


def call(stand: Stand, key: str | None = None, **headers: str) -> None:
    """One call that is measured as 7 units, on record."""
    before = len(stand.records())
    assert ask(stand.url, request(key or stand.key, chat(), headers=headers)).status == 200
    stand.records(before + 1)


def test_the_overview_counts_what_was_used(stand, viewer):
    call(stand)
    html = viewer.read("/dashboard?range=1h")
    total = stand.run(stand.house.store.overview(0, 2**60)).total
    assert f'<span data-live="requests">{total.requests}</span>' in html
    assert f'<span data-live="units">{total.units_micro // 10**6}</span>' in html
    charts = re.search(r'<script type="application/json" id="requests-series">(.*?)</script>', html)
    assert charts is not None
    points = json.loads(charts[1])
    assert len(points["x"]) == 60 and sum(points["series"][0]["values"]) == total.requests


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("range=7d", 200),
        ("start=2026-01-01&end=2026-01-02", 200),
        ("start=2026-01-01&end=2026-01-31", 200),
        ("range=9d", 400),
        ("start=2026-02-30", 400),
        ("start=2026-02-03&end=2026-02-01", 400),
        ("start=1970-01-01&end=9998-01-01", 400),
        ("start=0001-01-01&end=0001-01-02", 400),
    ],
)
def test_a_time_that_cannot_be_looked_at_is_said_on_the_page(viewer, query, status):
    html = viewer.read(f"/dashboard?{query}", status)
    assert ('role="alert"' in html) is (status == 400)


def test_a_customer_is_made_found_and_shown(stand, admin):
    assert admin.done(
        "/dashboard/customers/new", name="Büro & Co", plan="pro", customer_id="buero", email="a@b.example"
    )
    html = admin.read("/dashboard/customers?find=b%C3%BCro")
    assert "Büro &amp; Co" in html and "/dashboard/customers/buero" in html
    assert "Nobody is found" in admin.read("/dashboard/customers?find=zzz")
    shown = words(admin.read("/dashboard/customers/buero"))
    assert "Büro & Co" in shown and "a@b.example" in shown and "1,000,000" in shown
    assert stand.run(stand.house.store.customer("buero")).plan_id == "pro"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "name is a printable text"),
        ("customer_id", "../x", "letters"),
        ("customer_id", "acme", "already"),
        ("email", "nobody", "not an address"),
        ("plan", "gold", "no plan"),
    ],
)
def test_a_mistake_stands_beside_its_field_and_what_was_typed_is_kept(admin, field, value, said):
    typed = {"name": "Kept name", "plan": "pro", field: value}
    html = admin.refused("/dashboard/customers/new", 409 if value == "acme" else 400, **typed)
    error = re.search(rf'id="{field}-error">(.*?)</p>', html, re.DOTALL)
    assert error is not None and said in words(error[1]), html
    assert f'id="{field}"' in html and 'aria-invalid="true"' in html
    assert field == "name" or 'value="Kept name"' in html


def test_a_key_is_shown_once_and_refused_when_it_is_revoked(stand, admin):
    html = admin.refused(f"{ONE}/keys", 200, name="once", models="gpt-4o*, claude-*", expires="2099-01-31")
    secret = re.search(r'<code id="secret">(gk_\w+)</code>', html)
    assert secret is not None and ask(stand.url, request(secret[1], chat())).status == 200
    again = admin.read(f"{ONE}/keys")
    assert secret[1] not in again and "gpt-4o*, claude-*" in again
    key = next(key for key in stand.run(stand.house.store.keys("acme")) if key.name == "once")
    assert key.expires_ms == 4_073_587_200_000
    assert admin.done(f"{ONE}/keys/{key.id}/revoke").endswith("done=revoked")
    assert "The key is revoked" in words(admin.read(f"{ONE}/keys?done=revoked"))
    assert secret[1] not in "".join(deed.detail for deed in stand.run(stand.house.store.deeds(limit=50)))


def test_a_rotated_key_leaves_the_old_one_for_a_while(stand, admin):
    admin.refused(f"{ONE}/keys", 200, name="turn")
    key = next(key for key in stand.run(stand.house.store.keys("acme")) if key.name == "turn")
    html = admin.refused(f"{ONE}/keys/{key.id}/rotate", 200, grace_hours="24")
    assert 'id="secret"' in html
    old = stand.run(stand.house.store.key(key.id))
    assert old.revoked_ms is None and old.expires_ms is not None


def test_the_key_of_one_customer_is_not_reached_through_another(stand, admin):
    key = next(key for key in stand.run(stand.house.store.keys("acme")) if key.revoked_ms is None)
    for action in ("revoke", "rotate"):
        admin.refused(f"/dashboard/customers/beta/keys/{key.id}/{action}", 404)
    assert stand.run(stand.house.store.key(key.id)).revoked_ms is None


def test_a_plan_is_changed_and_a_customer_disabled_with_its_deeds(stand, admin, viewer):
    stand.run(stand.house.accounts.create_customer("Changing", customer_id="changing", plan_id="free"))
    one = "/dashboard/customers/changing"
    admin.done(f"{one}/plan", plan="pro")
    admin.done(f"{one}/settings", name="Changed", email="c@d.example", account="")
    admin.done(f"{one}/disable")
    customer = stand.run(stand.house.store.customer("changing"))
    assert (customer.plan_id, customer.name, customer.disabled_ms is not None) == ("pro", "Changed", True)
    assert "disabled" in words(viewer.read(f"{one}/settings"))
    admin.done(f"{one}/enable")
    log = words(viewer.read("/dashboard/audit?subject=changing"))
    assert "before: free" in log and "after: pro" in log and "admin@example.org" in log


def test_a_limit_is_set_changed_reset_and_taken_away(stand, admin):
    at = admin.done(
        "/dashboard/budgets/new",
        scope="customer", subject="acme", cap="25.50", dimension="dollars", window="day", mode="block", name="day",
    ).split("?")[0]  # fmt: skip
    html = admin.read(at)
    tag = re.search(r'name="tag" value="([^"]+)"', html)
    assert tag is not None and 'value="25.5"' in html
    admin.done(at, cap="30", mode="warn", name="day", tag=tag[1])
    assert 'value="30"' in admin.read(at)
    stale = words(admin.refused(at, 409, cap="40", mode="block", name="day", tag=tag[1]))
    assert "Somebody changed this limit" in stale and "cap 30" in stale and "cap 40" in stale
    assert admin.done(f"{at}/reset", reason="asked for").endswith("done=reset")
    fresh = re.search(r'name="tag" value="([^"]+)"', admin.read(at))
    assert fresh is not None
    assert admin.done(f"{at}/remove", tag=fresh[1]) == "/dashboard/budgets?done=removed"
    admin.read(at, 404)


@pytest.mark.parametrize(
    ("fields", "at", "said"),
    [
        ({"cap": ""}, "cap", "cap is missing"),
        ({"cap": "1e9"}, "cap", "amount of dollars"),
        ({"cap": "-1"}, "cap", "amount of dollars"),
        ({"subject": "nobody"}, "subject", "There is no customer"),
        ({"dimension": "apples"}, "dimension", "dimension is one of"),
        ({"window": "year"}, "window", "window"),
        ({"name": "quota"}, "name", "name is"),
        ({"scope": "model,user"}, "scope", "write 'user,model'"),
        ({"scope": "moon"}, "scope", "scope is one of"),
        ({"scope": "user,model", "subject": "alice"}, "subject", "both with a comma"),
        ({"scope": "user,model", "subject": "nobody/ann,gpt-4o"}, "subject", "There is no customer"),
        ({"scope": "route,model", "subject": "chatt,gpt-4o"}, "subject", "There is no route"),
        ({"scope": "user,key", "subject": "acme/a b,each"}, "subject", "no name of a user"),
        ({"scope": "route,model", "subject": "", "release": "billing_period"}, "release", "has no customer"),
        ({"window": "month", "release": "billing_period"}, "release", "per hour or day"),
        ({"mode": "warn", "release": "billing_period"}, "release", "never closes"),
        ({"window": "per_hour", "release": "billing_period"}, "release", "A rate limit has no"),
        ({"release": "never"}, "release", "release is one of"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_beside_its_field(admin, fields, at, said):
    typed = {
        "scope": "customer",
        "subject": "acme",
        "cap": "5",
        "dimension": "dollars",
        "window": "day",
        "mode": "block",
    }
    html = admin.refused("/dashboard/budgets/new", 400, **{**typed, **fields})
    error = re.search(rf'id="{at}-error">(.*?)</p>', html, re.DOTALL)
    assert error is not None and said in words(error[1]), words(html)
    # Nothing that was typed is lost.
    for name, value in {**typed, **fields}.items():
        if name in ("subject", "cap", "name"):
            assert f'value="{value}"' in html
        elif f'<option value="{value}"' in html:
            assert f'<option value="{value}" selected>' in html


def test_a_limit_of_two_scopes_is_set_shown_reset_and_waits_for_the_billing_period(stand, admin):
    stand.run(stand.house.accounts.create_customer("Paired", customer_id="paired", plan_id="pro"))
    key = stand.make_key("paired")
    new = admin.read("/dashboard/budgets/new")
    assert '<option value="user,model">user and model</option>' in new and "acme/ann,gpt-4o" in words(new)
    typed = {"scope": "customer,model", "cap": "1", "dimension": "requests", "window": "day", "mode": "block"}
    at = admin.done(
        "/dashboard/budgets/new", subject="paired, gpt-4o", name="pair", release="billing_period", **typed
    ).split("?")[0]
    shown = admin.read(at)
    assert "requests of customer,model paired,gpt-4o" in words(shown)
    assert '<option value="billing_period" selected>' in shown and "closed" not in words(shown)
    answered = ask(stand.url, request(key, chat()))
    assert answered.status == 200
    refused = ask(stand.url, request(key, chat()))
    assert (refused.status, refused.error["limit"]["name"]) == (402, "pair")
    assert "closed Its cap was hit" in words(admin.read(at))
    assert "closed" in words(admin.read("/dashboard/budgets?scope=customer,model&subject=paired,gpt-4o"))
    told = words(admin.read(f"/dashboard/requests/{answered.header('x-gatekeeper-call-id')}"))
    assert "pair (customer,model paired,gpt-4o, requests per day) reached its cap of 1: closed until the" in told
    assert "hit:" not in told
    admin.done(f"{at}/reset", reason="asked for")
    assert "closed" not in words(admin.read(at))
    tag = re.search(r'name="tag" value="([^"]+)"', admin.read(at))
    assert tag is not None
    wrong = admin.refused(at, 400, cap="1", mode="warn", name="pair", release="billing_period", tag=tag[1])
    assert "never closes" in words(wrong) and 'id="release-error"' in wrong
    admin.done(at, cap="5", mode="block", name="pair", release="window", tag=tag[1])
    assert '<option value="window" selected>' in admin.read(at)
    each = admin.done("/dashboard/budgets/new", subject="each,o1", name="each-pair", release="window", **typed)
    page = words(admin.read(each.split("?")[0]))
    assert "Written as the customer,the model" in page
    wrong = admin.refused(f"{each.split('?')[0]}/reset", 400, subject="paired", reason="")
    assert 'id="subject-error"' in wrong and "must say which" in words(wrong)
    admin.done(f"{each.split('?')[0]}/reset", subject="paired, o1", reason="")
    for one in (at, each.split("?")[0]):
        fresh = re.search(r'name="tag" value="([^"]+)"', admin.read(one))
        assert fresh is not None
        admin.done(f"{one}/remove", tag=fresh[1])


def test_a_rate_of_two_scopes_needs_no_word_on_when_it_opens(admin):
    typed = {"scope": "key,route", "subject": "each,chat", "cap": "9", "dimension": "requests", "window": "per_hour"}
    at = admin.done("/dashboard/budgets/new", name="rate-pair", mode="block", release="window", **typed).split("?")[0]
    html = admin.read(at)
    assert 'name="release"' not in html
    fresh = re.search(r'name="tag" value="([^"]+)"', html)
    assert fresh is not None
    admin.done(f"{at}/remove", tag=fresh[1])


def test_what_holds_for_one_customer_is_listed_with_its_state(stand, viewer):
    call(stand)
    shown = words(viewer.read("/dashboard/budgets?scope=customer&subject=acme"))
    assert "quota" in shown and "1,000,000" in shown and "plan pro" in shown
    assert "There is no customer" in words(viewer.read("/dashboard/budgets?scope=customer&subject=nobody"))
    assert "no scope" in words(viewer.read("/dashboard/budgets?scope=moon"))


def test_requests_are_filtered_and_each_is_explained(stand, viewer):
    call(stand)
    record = stand.records()[-1]
    listed = viewer.read("/dashboard/requests?customer_id=acme&outcome=complete&source=measured&status=200")
    assert f"/dashboard/requests/{record.call_id}" in listed
    assert "No request is like that" in words(viewer.read("/dashboard/requests?model=other"))
    shown = words(viewer.read(f"/dashboard/requests/{record.call_id}"))
    assert "usage().total" in shown and "7 units" in shown and "the same" in shown and "1,000,000 included" in shown
    viewer.read("/dashboard/requests/call_nothing", 404)


@pytest.mark.parametrize(
    "query",
    ["status=x", "outcome=nice", "source=me", "since=1.1.2026", "until=2026-13-01", "after=x", "after=1-%0a"],
)
def test_a_filter_that_cannot_be_read_is_said(viewer, query):
    assert 'role="alert"' in viewer.read(f"/dashboard/requests?{query}", 400)


def test_the_doctor_runs_when_the_button_asks(stand, viewer):
    assert "Not asked yet" in words(viewer.read("/dashboard/health"))
    answer = words(viewer.refused("/dashboard/health", 200))
    assert "All is well" in answer and "migration" in answer


def test_operators_are_made_by_owners_alone(stand, owner, admin):
    html = owner.refused("/dashboard/operators", 200, email="new@example.org", role="viewer")
    assert re.search(r'<code id="link">http://[^<]+/dashboard/first\?link=[\w-]{43}</code>', html)
    assert "new@example.org" in words(owner.read("/dashboard/operators"))
    login = stand.run(stand.house.store.login_of("new@example.org"))
    owner.done(f"/dashboard/operators/{login.id}", role="admin")
    owner.done(f"/dashboard/operators/{login.id}/disable")
    login = stand.run(stand.house.store.login(login.id))
    assert login.role == "admin" and login.disabled_ms is not None
    owner.done(f"/dashboard/operators/{login.id}/enable")
    mine = stand.run(stand.house.store.login_of("owner@example.org"))
    assert "That is you" in words(owner.refused(f"/dashboard/operators/{mine.id}/disable", 409))
    assert "email is not" in words(owner.refused("/dashboard/operators", 400, email="x", role="viewer"))
    assert "This takes the role owner" in words(admin.read("/dashboard/operators", 403))


def test_whoever_may_only_look_is_told_so_on_a_page(stand, viewer):
    html = viewer.refused(f"{ONE}/disable", 403)
    assert "This takes the role admin" in words(html) and 'href="/dashboard"' in html
    assert stand.run(stand.house.store.customer("acme")).disabled_ms is None


@pytest.mark.parametrize("page", ["", "/usage", "/keys", "/billing", "/settings"])
def test_a_customer_that_is_not_there_is_a_page_too(viewer, page):
    html = viewer.read(f"/dashboard/customers/{'x' * 50}{page}", 404)
    assert "There is no customer" in words(html)


def test_hostile_names_are_only_letters(stand, admin, viewer):
    admin.done("/dashboard/customers/new", name=HOSTILE, plan="free", customer_id="hostile")
    admin.refused("/dashboard/customers/hostile/keys", 200, name=HOSTILE, models="<b>,{{x}}", routes="")
    pages = ["", "/usage", "/keys", "/billing", "/settings"]
    texts = [viewer.read(f"/dashboard/customers/hostile{page}") for page in pages]
    texts += [viewer.read(path) for path in ("/dashboard/customers", "/dashboard/audit", "/dashboard")]
    texts.append(viewer.read("/dashboard/requests?customer_id=%22%3E%3Cscript%3E"))
    texts.append(viewer.read("/dashboard/customers?find=%22%3E%3Cscript%3E%7B%7B7*7%7D%7D"))
    for text in texts:
        assert "<script>" not in text and "49" not in re.findall(r"\{\{.*?\}\}|alert[^<]{0,40}", text)
        for opening in re.findall(r"<script\b[^>]*>", text):
            assert "src=" in opening or 'type="application/json"' in opening


def test_a_hostile_model_and_agent_are_only_letters(stand, viewer):
    key = stand.make_key(may_assert=True)
    body = json.dumps({"model": "<img src=x onerror=alert(1)>", "messages": []}).encode()
    before = len(stand.records())
    ask(stand.url, request(key, body))
    stand.records(before + 1)
    record = stand.records()[-1]
    assert record.model == "<img src=x onerror=alert(1)>"
    for path in ("/dashboard", f"{ONE}/usage", "/dashboard/requests", f"/dashboard/requests/{record.call_id}"):
        assert "<img src=x" not in viewer.read(path)


def test_a_nul_in_a_form_or_a_url_is_refused_as_a_page(admin, viewer):
    assert "<h1>" in admin.refused("/dashboard/customers/new", 400, name="a\0b", plan="pro")
    assert "<h1>" in viewer.read("/dashboard/customers?find=%00", 400)


def test_every_page_says_what_no_cache_and_no_frame_may_do(viewer):
    answer = viewer.get("/dashboard/customers")
    assert answer.header("cache-control") == "no-store" and answer.header("x-content-type-options") == "nosniff"
    policy = answer.header("content-security-policy") or ""
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_static_files_are_kept_for_ever_and_only_by_their_hash(stand, viewer):
    url = re.findall(r'/dashboard/static/[^"]+\.css', viewer.read("/dashboard"))[0]
    answer = ask(stand.url, request(None, b"", method="GET", path=url), "GET")
    assert answer.status == 200 and "immutable" in (answer.header("cache-control") or "")
    for wrong in ("/dashboard/static/gatekeeper.css", "/dashboard/static/../app.py", "/dashboard/static/vendor/"):
        assert ask(stand.url, request(None, b"", method="GET", path=wrong), "GET").status == 404


def test_the_stream_tells_the_figures_of_the_page(stand, viewer):
    call(stand)
    asked = request(None, b"", method="GET", path="/dashboard/live?range=1h", headers=dict(viewer.cookie))
    with Client(stand.url) as client:
        client.socket.sendall(asked)
        read = b""
        while b"\n\n" not in read.partition(b"event: figures")[2]:
            read += client.socket.recv(65_536)
    assert b"text/event-stream" in read and b"no-store" in read
    data = json.loads(read.partition(b"data: ")[2].partition(b"\n\n")[0])
    total = stand.run(stand.house.store.overview(0, 2**60)).total
    assert data["texts"]["requests"] == str(total.requests)
    assert set(data["charts"]) == {"requests", "money", "units", "waits"}
    assert viewer.get("/dashboard/live?range=x").status == 400


def test_the_stream_of_whoever_is_signed_out_ends(stand, callers):
    viewer = Visitor(stand, callers.cookie("viewer"))
    asked = request(None, b"", method="GET", path="/dashboard/live?range=1h", headers=dict(viewer.cookie))
    with Client(stand.url) as client:
        client.socket.sendall(asked)
        read = b""
        while b"event: figures" not in read:
            read += client.socket.recv(65_536)
        assert viewer.done("/dashboard/logout") == "/dashboard/login"
        call(stand)
        while not read.endswith(b"0\r\n\r\n"):
            read += client.socket.recv(65_536)
    assert viewer.get("/dashboard/live").status == 303


def test_a_gateway_that_ends_ends_its_streams_first(tmp_path):
    with running(tmp_path, says_hi, server="drain_s = 30") as stand:
        viewer = Visitor(stand, Callers(stand).cookie("viewer"))
        asked = request(None, b"", method="GET", path="/dashboard/live?range=1h", headers=dict(viewer.cookie))
        with Client(stand.url) as client:
            client.socket.sendall(asked)
            read = b""
            while b"event: figures" not in read:
                read += client.socket.recv(65_536)
            # As ``serve`` does at SIGTERM. Far less than drain_s: the socket gives up after ten seconds.
            stand.loop.call_soon_threadsafe(stand.house.stop_accepting)
            stand.stop()
            while piece := client.socket.recv(65_536):
                read += piece
        assert read.endswith(b"0\r\n\r\n")
