"""``gatekeeper events``: what operators see of what was told, and the receiver to try it with."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import httpx
import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.rules.notices import Kind, Subscription, Wanted
from gatekeeper.stores import open_store

SECRET = "whsec_" + base64.b64encode(b"the secret of these tests").decode()
OPS = Subscription("ops", frozenset(Kind))
BOOKS = Subscription("books", frozenset(Kind))


@pytest.fixture
def told(gateway):
    """Two events: one was sent to both targets; of the other one target waits after a failure and one gave up."""

    async def fill():
        store = await open_store(f"sqlite:///{gateway}/gatekeeper.sqlite", clock=SystemClock())
        store.tell(Wanted(frozenset(Kind), (80,)))
        for name in ("limit_1", "limit_2"):
            await store.emit(Kind.LIMIT_THRESHOLD, name, "acme", {"threshold": 80, "limit": "Grüße 🚀"})
            await store.fan_out([OPS, BOOKS], 1_000)
            for target in ("ops", "books"):
                (claim,) = await store.claim(target, 1_000, 2_000, 1)
                if name == "limit_1":
                    await store.delivered(claim, 1_000)
                elif target == "ops":
                    await store.failed(claim, "the receiver answered 503", 2**42, 1_000)
                else:
                    await store.failed(claim, "the receiver answered 410", None, 1_000)
        await store.close()

    asyncio.run(fill())


def rows(cli, *arguments):
    return json.loads(cli("events", "list", *arguments, "--json").out)


def test_deliveries_are_listed_with_what_they_met(cli, told):
    assert [(row["event"], row["target"], row["state"], row["error"]) for row in rows(cli)] == [
        ("limit_2", "books", "dead", "the receiver answered 410"),
        ("limit_2", "ops", "waiting", "the receiver answered 503"),
        ("limit_1", "books", "sent", None),
        ("limit_1", "ops", "sent", None),
    ]
    assert len(rows(cli, "--state", "sent")) == len(rows(cli, "--target", "ops")) == 2
    assert len(rows(cli, "--limit", "1")) == 1
    head, dead, *_ = cli("events", "list").out.splitlines()
    assert head.split("  ")[0] == "EVENT"
    said = "limit_2 limit.threshold books dead 1 1970-01-01 00:00:01 the receiver answered 410"
    assert " ".join(dead.split()) == said


def test_an_event_is_shown_as_it_is_sent(cli, told):
    shown = json.loads(cli("events", "show", "limit_2", "--json").out)
    assert shown["event"]["specversion"] == "1.0"
    assert shown["event"]["data"]["limit"] == "Grüße 🚀"
    assert [one["state"] for one in shown["deliveries"]] == ["dead", "waiting"]
    first, head, *deliveries = cli("events", "show", "limit_2").out.splitlines()
    assert json.loads(first) == shown["event"]
    assert head.startswith("TARGET")
    assert len(deliveries) == 2


def test_what_was_given_up_is_sent_again(cli, told):
    assert json.loads(cli("events", "retry", "limit_2", "--target", "ops", "--json").out) == {"retried": 1}
    assert [row["state"] for row in rows(cli, "--target", "ops")] == ["waiting", "sent"]
    assert cli("events", "retry", "--all-dead").out.startswith("1 deliveries are sent again")
    assert rows(cli, "--state", "dead") == []
    assert json.loads(cli("events", "retry", "limit_1", "--json").out) == {"retried": 0}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("show", "limit_9"), 1, "gatekeeper events list"),
        (("retry", "limit_9"), 1, "no event 'limit_9'"),
        (("retry",), 2, "--all-dead"),
        (("retry", "limit_1", "--all-dead"), 2, "--all-dead"),
        (("list", "--state", "lost"), 2, "lost"),
        (("listen",), 2, "whsec_"),
        (("listen", "--secret", "secret-word"), 2, "whsec_"),
        (("listen", "--secret", "whsec_c2VjcmV0"), 2, "6 bytes"),
    ],
)
def test_what_cannot_be_done_is_said(cli, told, given, code, said):
    done = cli("events", *given)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "secret-word" not in done.err


def test_the_receiver_prints_what_is_signed_and_refuses_the_rest(process):
    body = json.dumps({"id": "limit_1", "data": {"limit": "Grüße"}}).encode()

    def post(url, key=SECRET, stamp=None, content=body):
        stamp = str(int(time.time()) if stamp is None else stamp)
        made = hmac.new(base64.b64decode(key[6:]), f"limit_1.{stamp}.".encode() + content, hashlib.sha256).digest()
        signature = "v1,bm90aGluZw== v1," + base64.b64encode(made).decode()
        headers = {"webhook-id": "limit_1", "webhook-timestamp": stamp, "webhook-signature": signature}
        return httpx.post(url, content=content, headers=headers).status_code

    with process("events", "listen", "--port", "0", "--secret", SECRET) as running:
        url = running.stdout.readline().split()[2].rstrip(";")
        assert post(url) == 204
        assert json.loads(running.stdout.readline()) == json.loads(body)
        other = "whsec_" + base64.b64encode(b"another secret of these tests").decode()
        assert post(url, key=other) == 401
        assert post(url, stamp=int(time.time()) - 301) == 401
        assert post(url, content=b"no json") == 400
        assert [running.stdout.readline()[:7] for _ in range(2)] == ["refused"] * 2
        assert httpx.post(url, content=body).status_code == 401
