"""The portal as a customer's browser meets it: real server, real cookies, a real mail server."""

import csv
import datetime as dt
import io
import re
from contextlib import contextmanager
from dataclasses import replace
from html import escape

import httpx
import pytest
from fakes.origin import replays
from fakes.postbox import Postbox
from fakes.stand import running

from gatekeeper.config.gateway import MailSecurity, MailServer
from gatekeeper.ports import Customer
from gatekeeper.web.portal.home import harmless

BODY = b'{"id":"x","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
CALL = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
MAIL = "ada@acme.test"
PASSWORD = "correct horse battery staple"


@pytest.fixture
def stand(tmp_path):
    with running(tmp_path, replays(BODY, "application/json"), server='public_url = "https://pay.test"') as stand:
        postbox = Postbox()
        stand.run(postbox.start())
        mail = MailServer("127.0.0.1", postbox.port, MailSecurity.NONE, "portal@pay.test")
        declared = stand.house.live.declared
        # Plain http in tests: cookies are not marked as secure then.
        server = replace(declared.server, public_url=stand.url)
        stand.house.live.gateway = replace(declared, mail=mail, server=server)
        stand.postbox = postbox
        stand.run(named(stand, "acme", MAIL))
        yield stand
        stand.run(postbox.stop())


async def named(stand, customer_id, email):
    customer = await stand.house.store.customer(customer_id)
    if customer is None:
        await stand.house.accounts.create_customer(customer_id.title(), customer_id=customer_id, plan_id="free")
        customer = await stand.house.store.customer(customer_id)
    assert isinstance(customer, Customer)
    await stand.house.store.update_customer(replace(customer, email=email))


def browser(stand):
    return httpx.Client(base_url=stand.url, headers={"Sec-Fetch-Site": "same-origin", "Origin": stand.url})


def mailed_link(stand, client, email=MAIL):
    before = len(stand.postbox.mails)
    assert client.post("/portal/login/link", data={"email": email}).status_code == 200

    async def came():
        return len(stand.postbox.mails) > before

    stand.wait_until(came)
    mail = stand.postbox.mails[-1]
    assert mail.to == [email]
    found = re.search(r"https?://\S+/portal/link\?t=(\S+)", mail.message.get_content())
    assert found is not None
    return found[0], found[1]


@contextmanager
def signed_in(stand, email=MAIL):
    with browser(stand) as client:
        _, secret = mailed_link(stand, client, email)
        assert client.post("/portal/link", data={"t": secret}).status_code == 303
        yield client


def csrf(client, path="/portal"):
    page = client.get(path)
    assert page.status_code == 200, page.text
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
    assert found is not None
    return found[1]


def post(client, path, **fields):
    return client.post(path, data={"csrf": csrf(client), **fields})


def test_a_link_comes_by_mail_and_signs_in_once(stand):
    with browser(stand) as client:
        assert client.get("/portal").headers["location"] == "/portal/login?next=%2Fportal"
        url, secret = mailed_link(stand, client)
        # A mail program that follows links signs nobody in, and uses nothing up.
        assert "Sign in" in client.get(url).text
        assert client.get("/portal").status_code == 303
        done = client.post("/portal/link", data={"t": secret})
        assert (done.status_code, done.headers["location"]) == (303, "/portal")
        assert "HttpOnly" in done.headers["set-cookie"]
        assert "Acme" in client.get("/portal").text
    with browser(stand) as other:
        assert other.post("/portal/link", data={"t": secret}).status_code == 410
        assert other.get("/portal").status_code == 303


def test_whoever_has_no_account_is_told_the_same_and_mailed_nothing(stand):
    with browser(stand) as client:
        known = client.post("/portal/login/link", data={"email": MAIL})
        unknown = client.post("/portal/login/link", data={"email": "eve@acme.test"})
        assert known.status_code == unknown.status_code == 200
        assert known.text.replace(MAIL, "X") == unknown.text.replace("eve@acme.test", "X")

    async def mailed():
        return len(stand.postbox.mails) == 1

    stand.wait_until(mailed)
    assert [mail.to for mail in stand.postbox.mails] == [[MAIL]]


def test_an_address_that_two_customers_share_signs_nobody_in(stand):
    stand.run(named(stand, "twin", MAIL))
    with browser(stand) as client:
        assert client.post("/portal/login/link", data={"email": MAIL}).status_code == 200
        mailed_link(stand, client, address_of_a_third(stand))
    assert [mail.to for mail in stand.postbox.mails] == [["third@acme.test"]]


def address_of_a_third(stand):
    stand.run(named(stand, "third", "third@acme.test"))
    return "third@acme.test"


def test_a_key_is_shown_once_calls_and_is_revoked(stand):
    with signed_in(stand) as client:
        made = post(client, "/portal/keys", name="laptop")
        (secret,) = set(re.findall(r"gk_[A-Za-z0-9_]+", made.text.partition("curl")[0])) - {""}
        assert secret not in client.get("/portal/keys").text
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.post(f"{stand.url}/v1/chat/completions", json=CALL, headers=headers).status_code == 200
        stand.records(1)
        assert ">7<" in client.get("/portal").text
        key_id = stand.records(1)[0].key_id
        gone = post(client, f"/portal/keys/{key_id}/revoke")
        assert gone.headers["location"] == "/portal/keys?done=revoked"

        async def refused():
            async with httpx.AsyncClient() as caller:
                answer = await caller.post(f"{stand.url}/v1/chat/completions", json=CALL, headers=headers)
            return answer.status_code == 401

        stand.wait_until(refused)


def key_named(stand, name):
    return next((key for key in stand.run(stand.house.store.keys("acme")) if key.name == name), None)


def test_a_key_with_a_last_day_says_until_when_and_is_refused_after_it(stand):
    day = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)
    with signed_in(stand) as client:
        made = post(client, "/portal/keys", name="trial", expires=day.isoformat())
        secret = re.findall(r"gk_[A-Za-z0-9_]+", made.text)[0]
        key = key_named(stand, "trial")
        # All of its last day counts, UTC.
        after = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)
        assert key.expires_ms == int(after.timestamp() * 1000)
        assert re.search(rf"until\s*<time[^>]*>{day} 23:59 UTC</time>", client.get("/portal/keys").text)
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.post(f"{stand.url}/v1/chat/completions", json=CALL, headers=headers).status_code == 200
        # It ends by the database's word, at the door of every process.
        assert stand.run(stand.house.store.expire_key(key.id, 1))

        async def refused():
            async with httpx.AsyncClient() as caller:
                answer = await caller.post(f"{stand.url}/v1/chat/completions", json=CALL, headers=headers)
            return answer.status_code == 401

        stand.wait_until(refused)
        listed = client.get("/portal/keys").text
        assert "expired" in listed and f"/portal/keys/{key.id}/rotate" not in listed


def test_the_last_day_of_a_key_is_kept_when_it_is_rotated_and_today_is_one(stand):
    today = dt.datetime.now(dt.UTC).date()
    with signed_in(stand) as client:
        assert "It is shown this once" in post(client, "/portal/keys", name="today", expires=today.isoformat()).text
        (key,) = [key_named(stand, "today")]
        assert "It is shown this once" in post(client, f"/portal/keys/{key.id}/rotate").text
        both = [one.expires_ms for one in stand.run(stand.house.store.keys("acme")) if one.name == "today"]
        assert both == [key.expires_ms] * 2
        post(client, "/portal/keys", name="endless", expires="")
        assert key_named(stand, "endless").expires_ms is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("1999-12-31", "would have expired already"),
        ("2026-02-30", "a day, YYYY-MM-DD"),
        ("tomorrow", "a day, YYYY-MM-DD"),
        ("0001-01-01", "would have expired already"),
        ("9999-12-31", "within ten years"),
        ("<script>", "a day, YYYY-MM-DD"),
    ],
)
def test_a_last_day_that_cannot_be_is_said_beside_its_field_and_no_key_is_made(stand, typed, said):
    with signed_in(stand) as client:
        answer = post(client, "/portal/keys", name="wrong", models="gpt-4o*", expires=typed)
        assert answer.status_code == 400
        (error,) = re.findall(r'id="expires-error">(.*?)</p>', answer.text, re.DOTALL)
        assert said in error
        # What was typed stays.
        for value in ("wrong", "gpt-4o*", escape(typed)):
            assert f'value="{value}"' in answer.text
        assert key_named(stand, "wrong") is None


def test_a_rotated_key_leaves_the_old_one_for_a_day(stand):
    with signed_in(stand) as client:
        post(client, "/portal/keys", name="old")

        async def keys():
            return {key.id: key for key in await stand.house.store.keys("acme")}

        (old,) = (key for key in stand.run(keys()).values() if key.name == "old")
        turned = post(client, f"/portal/keys/{old.id}/rotate")
        assert "It is shown this once" in turned.text
        after = stand.run(keys())
        now_ms = stand.house.accounts._clock.now_ms()
        assert after[old.id].revoked_ms is None
        assert 0 < after[old.id].expires_ms - now_ms <= 86_400_000
        assert sum(key.name == "old" for key in after.values()) == 2


def test_nobody_reaches_what_belongs_to_somebody_else(stand):
    stand.run(named(stand, "bob", "bob@bob.test"))
    with signed_in(stand) as ada, signed_in(stand, "bob@bob.test") as bob:
        post(ada, "/portal/keys", name="adas")
        post(ada, "/portal/alerts", measure="units", window="day", threshold="5")

        async def belongings():
            store = stand.house.store
            keys = [key.id for key in await store.keys("acme") if key.name == "adas"]
            return keys[0], (await store.alerts("acme"))[0].id

        key_id, alert_id = stand.run(belongings())
        for path in (f"keys/{key_id}/revoke", f"keys/{key_id}/rotate", f"alerts/{alert_id}/drop"):
            assert post(bob, f"/portal/{path}").status_code == 404, path
        assert "adas" not in bob.get("/portal/keys").text
        assert stand.run(belongings()) == (key_id, alert_id)
        # Neither is the portal's cookie one of the dashboard's.
        assert ada.get("/dashboard").status_code == 303
        assert ada.get("/admin/customers").status_code == 401


@pytest.mark.parametrize("path", ["keys", "alerts", "plan", "plan/end", "billing", "password", "logout"])
def test_nothing_is_changed_without_the_token_of_the_page(stand, path):
    with signed_in(stand) as client:
        assert client.post(f"/portal/{path}", data={"name": "x"}).status_code == 403
        token = csrf(client)
        far = {"Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
        assert client.post(f"/portal/{path}", data={"csrf": token}, headers=far).status_code == 403
        assert client.get("/portal").status_code == 200


def test_a_password_is_made_and_signs_in_and_ends_other_sessions(stand):
    with signed_in(stand) as first, signed_in(stand) as second, browser(stand) as third:
        assert post(first, "/portal/password", new=PASSWORD).status_code == 303
        assert first.get("/portal").status_code == 200
        assert second.get("/portal").status_code == 303
        wrong = third.post("/portal/login", data={"email": MAIL, "password": "something else 123"})
        assert wrong.status_code == 401
        assert "something else" not in wrong.text
        right = third.post("/portal/login", data={"email": MAIL, "password": PASSWORD, "next": "https://evil.test"})
        assert (right.status_code, right.headers["location"]) == (303, "/portal")
        assert post(third, "/portal/password", old="not that one!", new=PASSWORD + "2").status_code == 401


def test_an_alert_is_made_shown_and_dropped(stand):
    with signed_in(stand) as client:
        for bad in ("0", "-1", "many", "1e9", "0.0000001"):
            assert post(client, "/portal/alerts", measure="units", window="day", threshold=bad).status_code == 400, bad
        for measure, most in (("units", "9" * 12), ("charge", "9" * 9)):
            for amount, status in ((f"9{most}", 400), (f"{most}.999999", 303)):
                wish = {"measure": measure, "window": "day", "threshold": amount}
                assert post(client, "/portal/alerts", **wish).status_code == status, wish
        for drop in re.findall(r"/portal/alerts/[a-z0-9_]+/drop", client.get("/portal/alerts").text):
            assert post(client, drop).status_code == 303
        assert post(client, "/portal/alerts", measure="charge", window="month", threshold="$2.50").status_code == 303
        assert post(client, "/portal/alerts", measure="charge", window="month", threshold="2.5").status_code == 409
        page = client.get("/portal/alerts").text
        assert "$2.50 charged in a month" in page
        (drop,) = re.findall(r"/portal/alerts/[a-z0-9_]+/drop", page)
        assert post(client, drop).status_code == 303
        assert "There is no alert yet" in client.get("/portal/alerts").text


def test_usage_comes_as_a_file_that_no_table_program_runs(stand):
    key = stand.make_key(may_assert=True)
    headers = {"Authorization": f"Bearer {key}", "X-Agent-Id": "-1:cmd"}
    call = {**CALL, "model": "=HYPERLINK(1)"}
    assert httpx.post(f"{stand.url}/v1/chat/completions", json=call, headers=headers).status_code == 200
    stand.records(1)
    with signed_in(stand) as client:
        by_model = client.get("/portal/usage.csv?by=model")
        assert by_model.headers["content-type"] == "text/csv; charset=utf-8"
        rows = list(csv.reader(io.StringIO(by_model.text)))
        assert rows[0] == ["model", "requests", "units", "charge_usd"]
        assert rows[1][1:3] == ["1", "7"]
        assert rows[1][0].startswith(("'=", "m"))
        calls = list(csv.DictReader(io.StringIO(client.get("/portal/usage.csv?by=request").text)))
        assert [(row["units"], row["agent"][:2]) for row in calls] == [("7", "'-")]
        assert client.get("/portal/usage.csv?by=secrets").status_code == 400
        assert client.get("/portal/usage.csv?start=2026-99-99").status_code == 400


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_name_begins_like_a_formula(start):
    assert harmless(f"{start}cmd()") == f"'{start}cmd()"
    assert [harmless(text) for text in ("-1.5", "gpt-5", "")] == ["-1.5", "gpt-5", ""]


def test_every_page_stands_also_for_whoever_has_used_nothing(stand):
    stand.run(named(stand, "bob", "<b>bob@bob.test"))
    stand.run(named(stand, "bob", "bob@bob.test"))
    with signed_in(stand, "bob@bob.test") as client:
        for path in ("", "/usage", "/usage?range=7d", "/keys", "/plan", "/invoices", "/alerts", "/password"):
            page = client.get(f"/portal{path}")
            assert page.status_code == 200, path
            assert page.headers["content-security-policy"].startswith("default-src 'none'")
            assert page.text.count("<h1") == 1, path
        assert "Plans are changed by whoever runs this gateway" in client.get("/portal/plan").text
        assert post(client, "/portal/plan", plan="pro").status_code == 409
