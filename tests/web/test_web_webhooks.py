"""The URLs of Stripe's events and of subscriptions, through a real server, with and without Stripe."""

import fcntl
import json
import os
import time
from collections.abc import Iterator

import httpx
import pytest
import stripe
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, completion, request
from fakes.stand import ADMIN_KEY, Stand, running

SECRET = "whsec_test_secret"
PATHS = ("/webhooks/stripe", "/webhook/stripe", "/v1/webhooks/stripe", "/api/webhooks/stripe")
# Nobody listens there: what is kept waits.
NOWHERE = f"""
[stripe]
enabled = true
secret_key = "sk_test_nowhere"
webhook_secrets = ["{SECRET}"]
api_base = "http://127.0.0.1:9"
"""


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("plain"), says_hi) as found:
        yield found


@pytest.fixture(scope="module")
def selling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    server = 'public_url = "https://gateway.example"'
    with running(tmp_path_factory.mktemp("selling"), says_hi, ledger=NOWHERE, server=server) as found:
        yield found


def event(event_id: str, *, live: bool = False) -> bytes:
    about = {"object": "subscription", "id": "sub_1", "customer": "cus_1"}
    told = {"id": event_id, "object": "event", "type": "customer.subscription.updated", "livemode": live}
    return json.dumps({**told, "data": {"object": about}}, indent=3).encode()


def post(stand: Stand, path: str, body: bytes, header: str | None = None) -> Answer:
    """Signed as Stripe signs, unless another header is given."""
    headers = signature(body) if header is None else {"Stripe-Signature": header}
    return ask(stand.url, request(None, body, path=path, headers=headers))


def signature(body: bytes) -> dict[str, str]:
    """The header of a body that is sent now."""
    made = stripe.WebhookSignature.generate_signature_header(body.decode("latin-1"), SECRET, int(time.time()))
    return {"Stripe-Signature": made}


def admin(stand: Stand, path: str, method: str = "GET", **body: object) -> Answer:
    sent = json.dumps(body).encode() if method == "POST" else b""
    headers = {"X-Admin-Key": ADMIN_KEY}
    return ask(stand.url, request(None, sent, path=path, method=method, headers=headers), method)


def test_all_four_urls_share_one_table(selling):
    """Pitfall 34: the same event on another URL is known."""
    answers = [post(selling, path, event("evt_shared")) for path in PATHS]
    assert [answer.status for answer in answers] == [200] * 4
    assert [json.loads(answer.body)["new"] for answer in answers] == [True, False, False, False]


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (event("evt_x"), ""),
        (event("evt_x"), "t=1,v1=00"),
        (event("evt_x"), "t=\xff,v1=\xe9"),
        (b"\xff\xfe{", None),
        (b"", None),
        (b"[" * 50_000, None),
        (event("evt_x", live=True), None),
        (b'{"id": "evt_x"}', None),
    ],
)
def test_what_is_no_event_of_stripe_is_a_400(selling, body, header):
    """Pitfall 40: never a 500, whatever comes."""
    assert post(selling, PATHS[0], body, header).status == 400


def test_a_body_without_end_and_another_method_are_refused(selling):
    assert post(selling, PATHS[0], b"x" * (1024 * 1024 + 1)).status == 413
    assert admin(selling, PATHS[0]).status == 405


def test_where_stripe_is_off_nothing_is_taken_and_the_rest_answers(plain):
    """Pitfall 50: disabled, nobody is asked; what is ours is shown."""
    assert [post(plain, path, event("evt_1")).status for path in PATHS] == [404] * 4
    assert plain.house.counter is None
    (customer,) = json.loads(admin(plain, "/admin/customers").body)["customers"]
    top = f"/admin/customers/{customer['id']}"
    for path in ("checkout", "portal", "subscription"):
        assert admin(plain, f"{top}/{path}", "POST", **({} if path == "portal" else {"plan": "pro"})).status == 409
    assert json.loads(admin(plain, f"{top}/invoices").body) == {"invoices": [], "fresh": False, "next": None}
    found = json.loads(admin(plain, f"{top}/invoices/preview").body)
    assert (found["stripe"], found["why"], found["ours"]["total_cents"]) == (None, "Stripe is not enabled", 9_900)


def test_stripe_that_is_away_is_a_503_and_an_unknown_word_a_400(selling):
    (customer,) = json.loads(admin(selling, "/admin/customers").body)["customers"]
    top = f"/admin/customers/{customer['id']}"
    answer = admin(selling, f"{top}/checkout", "POST", plan="pro")
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "biller_unavailable")
    for body in ({}, {"plan": "gold"}, {"plan": 1}, {"plan": "pro", "x": 1}):
        assert admin(selling, f"{top}/checkout", "POST", **body).status == 400
    assert admin(selling, f"{top}/subscription", "POST", plan="pro", when="later").status == 400
    assert admin(selling, f"{top}/subscription", "POST", plan="pro", resume=True).status == 400
    assert admin(selling, f"{top}/subscription?when=never", "DELETE").status == 400
    assert admin(selling, f"{top}/subscription", "DELETE").status == 409
    assert json.loads(admin(selling, f"{top}/subscription").body) == {"subscription": None}
    assert admin(selling, "/admin/customers/nobody/checkout", "POST", plan="pro").status == 404
    assert ask(selling.url, request(None, b"", path=f"{top}/invoices", method="GET"), "GET").status == 401


def test_an_event_that_cannot_be_kept_is_not_confirmed_and_is_taken_when_it_comes_again(tmp_path):
    """Pitfall 37, through the server: while nobody can write into the database the answer is a 5xx, so Stripe sends it
    again; then it is new."""
    server = 'public_url = "https://gateway.example"'
    with running(tmp_path, says_hi, ledger=NOWHERE, server=server) as stand:
        assert post(stand, PATHS[0], event("evt_before")).status == 200
        gate = os.open(tmp_path / "gateway.sqlite.lock", os.O_RDWR)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            signed = signature(event("evt_away"))
            # As Stripe does, nobody waits for longer than 20 s.
            refused = httpx.post(stand.url + PATHS[0], content=event("evt_away"), headers=signed, timeout=20)
        finally:
            os.close(gate)
        assert refused.status_code == 503
        # What still waited for the lock may be kept after all: then the second one is not new. It is there once.
        assert [post(stand, PATHS[0], event(name)).status for name in ("evt_away", "evt_before")] == [200, 200]
        assert stand.run(stand.house.store.letter("evt_away")).state in ("waiting", "done")
        assert json.loads(post(stand, PATHS[0], event("evt_away")).body)["new"] is False
