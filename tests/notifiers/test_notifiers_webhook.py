"""Web hooks as a receiver sees them."""

import logging

import pytest
from notifiers_stand import OLD_SECRET, SECRET, signed_by, webhook

ODD = 'gpt-"4o" \U0001f600 \u2028\x00 Grüße \\ \ud83d'


def test_an_event_arrives_as_a_signed_cloud_event(tell):
    async def body(stand):
        dispatcher = stand.dispatcher(
            webhook(stand.receiver.url), server='[server]\npublic_url = "https://llm.example.com"\n'
        )
        await stand.emit("limit_1", limit=ODD)
        await stand.turns(dispatcher)
        (asked,) = stand.receiver.asked
        assert (asked.method, asked.target) == ("POST", b"/hooks?token=url-token")
        assert asked.header("content-type") == "application/cloudevents+json; charset=utf-8"
        assert asked.header("webhook-id") == "limit_1"
        assert asked.header("webhook-timestamp") == str(stand.clock.now_ms() // 1000)
        assert signed_by(asked, SECRET)
        assert not signed_by(asked, OLD_SECRET)
        assert stand.receiver.events["limit_1"] == {
            "specversion": "1.0",
            "id": "limit_1",
            "source": "https://llm.example.com",
            "type": "gatekeeper.limit.threshold",
            "subject": "acme",
            "time": "2025-06-15T15:06:40.000Z",
            "datacontenttype": "application/json",
            "data": {"threshold": 80, "limit": ODD},
        }
        assert await stand.states() == {"limit_1": ("sent", 1, None)}

    tell(body)


def test_an_event_of_nobody_has_no_subject(tell):
    async def body(stand):
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit("limit_1", customer_id=None)
        await stand.turns(dispatcher)
        assert "subject" not in stand.receiver.events["limit_1"]
        assert stand.receiver.events["limit_1"]["source"] == "gatekeeper"

    tell(body)


def test_while_a_secret_is_replaced_both_sign(tell):
    async def body(stand):
        both = webhook(stand.receiver.url, more=f'secrets = ["{SECRET}", "{OLD_SECRET}"]')
        dispatcher = stand.dispatcher(both)
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        (asked,) = stand.receiver.asked
        assert signed_by(asked, SECRET)
        assert signed_by(asked, OLD_SECRET)

    tell(body)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 429, 500, 503])
def test_nothing_but_success_is_taken_for_it(status, tell):
    async def body(stand):
        stand.receiver.answer = status
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        assert await stand.states() == {"limit_1": ("waiting", 1, f"the receiver answered {status}")}
        # No redirect was followed.
        assert len(stand.receiver.asked) == 1

    tell(body)


def test_a_receiver_that_is_gone_gets_no_second_attempt(tell):
    async def body(stand):
        stand.receiver.answer = 410
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit("limit_1")
        await stand.turns(dispatcher, 3, step_s=86_400)
        assert await stand.states() == {"limit_1": ("dead", 1, "the receiver answered 410")}
        assert len(stand.receiver.asked) == 1

    tell(body)


@pytest.mark.parametrize("failure", ["refused", "reset", "no http", "500"])
def test_neither_secret_nor_url_is_ever_shown(failure, tell, caplog):
    caplog.set_level(logging.DEBUG)
    # They were quietened when the first web hook was made, perhaps in another test.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.NOTSET)

    async def body(stand):
        async def accept(line):
            if failure == "no http":
                await line.send(b"ssh-2.0\r\n\r\n")

        if failure == "refused":
            await stand.receiver.origin.stop()
        elif failure != "500":
            stand.receiver.origin.accept = accept
        stand.receiver.answer = 500
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        if failure == "refused":
            await stand.receiver.origin.start()
        ((state, attempts, error),) = (await stand.states()).values()
        assert (state, attempts) == ("waiting", 1)
        assert error in ("the receiver answered 500", f"the receiver cannot be reached: {error.split(': ')[-1]}")
        return error

    shown = tell(body) + caplog.text
    assert "limit_1" in caplog.text
    for hidden in ("url-token", "token=", "/hooks", SECRET, SECRET.removeprefix("whsec_")):
        assert hidden not in shown


def test_a_long_answer_is_not_read_to_its_end(tell):
    async def body(stand):
        async def flood(line):
            await line.reader.readuntil(b"\r\n\r\n")
            await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n")
            while True:
                await line.send(b"x" * 65_536)

        stand.receiver.origin.accept = flood
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        assert await stand.states() == {"limit_1": ("sent", 1, None)}

    tell(body)
