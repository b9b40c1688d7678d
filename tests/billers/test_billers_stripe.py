"""Meter events through the real SDK: what is on the wire, and what each answer means."""

import asyncio
import json
import logging
import os
import platform
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import stripe
from billers_stand import METER, Counter, Killed, QuickWire, a_batch, again, at_counter

from gatekeeper.billers.stripe import StripeBiller
from gatekeeper.billers.stripe_client import STRIPE_VERSION, is_live, public_text
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.demo.stripe import FakeStripe, Fault
from gatekeeper.errors import Fault as Failed
from gatekeeper.errors import FaultKind
from gatekeeper.rules.billing import VALUE_MAX, NotTaken, Reported, Throttled

EVENTS = "/v1/billing/meter_events"
MINUTE_MS = 60_000


async def a_customer(counter: Counter) -> str:
    """A meter and a customer, made behind the adapter's back."""
    wire = QuickWire()
    sdk = stripe.StripeClient(
        counter.fake.secret_key, http_client=wire, base_addresses={"api": str(counter.config.api_base)}
    )
    await sdk.v1.billing.meters.create_async(
        {"display_name": "Units", "event_name": METER, "default_aggregation": {"formula": "sum"}}
    )
    made = await sdk.v1.customers.create_async({"email": "ada@example.com"})
    await wire.aclose()
    counter.fake.requests.clear()
    return made.id


def test_a_batch_is_one_event_with_identifier_instant_and_a_plain_number() -> None:
    """Pitfall 9: the timestamp is in the body, always."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        async with counter.biller() as biller:
            batch = a_batch(counter.fake, customer, 12_345)
            assert await biller.report(batch) is Reported.ACCEPTED
            (request,) = counter.fake.requests.all
            assert dict(request.params) == {
                "event_name": METER,
                "identifier": "bat_1-1",
                "timestamp": str(batch.ts_ms // 1000),
                "payload": {"stripe_customer_id": customer, "value": "12345"},
            }
            assert request.headers["stripe-version"] == STRIPE_VERSION
            assert counter.fake.metered_units(customer) == 12_345

    at_counter(body)


def test_a_duplicate_identifier_is_as_good_as_a_yes() -> None:
    """Pitfall 1: the 400 of a second event is a success, and counts nothing."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        async with counter.biller() as biller:
            batch = a_batch(counter.fake, customer)
            assert await biller.report(batch) is Reported.ACCEPTED
            assert await biller.report(batch) is Reported.DUPLICATE
        assert counter.fake.metered_units() == 100

    at_counter(body)


def test_a_429_is_told_with_its_retry_after_and_is_not_tried_again_here() -> None:
    """Pitfall 11: the SDK does not retry a 429; the one who waits gets to know for how long."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        counter.fake.fail(EVENTS, Fault.too_many(17))
        async with counter.biller() as biller:
            with pytest.raises(Throttled) as told:
                await biller.report(a_batch(counter.fake, customer))
            assert told.value.retry_after_s == 17 and told.value.retryable
            assert len(counter.fake.requests) == 1
            counter.fake.fail(EVENTS, Fault.too_many(None))
            with pytest.raises(Throttled) as told:
                await biller.report(a_batch(counter.fake, customer))
            assert told.value.retry_after_s is None

    at_counter(body)


@pytest.mark.parametrize("first", [Fault.reset_after(), Fault.error(applied=True), Fault.error(409, applied=True)])
def test_a_429_after_an_attempt_of_unknown_fate_is_no_clear_no(first: Fault) -> None:
    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        counter.fake.fail(EVENTS, first, Fault.too_many(3))
        async with counter.biller() as biller:
            with pytest.raises(Throttled) as told:
                await biller.report(a_batch(counter.fake, customer))
        assert told.value.retry_after_s == 3 and not told.value.retryable
        assert counter.fake.metered_units() == 100

    at_counter(body)


def test_a_500_and_then_a_200_are_two_calls_under_one_key() -> None:
    """Pitfall 12: the SDK's own default are no retries at all."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        counter.fake.fail(EVENTS, Fault.error())
        wire = QuickWire()
        async with counter.biller(wire) as biller:
            assert await biller.report(a_batch(counter.fake, customer)) is Reported.ACCEPTED
        first, second = counter.fake.requests.to(EVENTS)
        assert first.idempotency_key == second.idempotency_key is not None
        assert len(wire.slept_s) == 1

    at_counter(body)


@pytest.mark.parametrize("applied", [False, True])
def test_a_500_that_sticks_to_its_key_is_left_behind_with_the_key(applied: bool) -> None:
    """Pitfall 13: Stripe repeats a 500 under its key for a day; the next report has another, and its identifier."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        counter.fake.fail(EVENTS, Fault.error(sticks=True, applied=applied))
        async with counter.biller() as biller:
            batch = a_batch(counter.fake, customer)
            with pytest.raises(Failed) as failed:
                await biller.report(batch)
            assert not failed.value.retryable
            assert await biller.report(batch) is (Reported.DUPLICATE if applied else Reported.ACCEPTED)
        keys = {request.idempotency_key for request in counter.fake.requests.to(EVENTS)}
        assert len(keys) == 2
        assert counter.fake.metered_units() == 100

    at_counter(body)


def test_one_call_is_in_flight_for_a_customer_and_meter_and_others_run_beside_it() -> None:
    """Pitfall 14: Stripe refuses a second one with a 429."""

    async def body(counter: Counter) -> None:
        ada = await a_customer(counter)
        counter.fake.latency_s = 0.01
        async with counter.biller() as biller:
            batches = [a_batch(counter.fake, account, number=n) for n in range(8) for account in (ada, f"cus_{n}")]
            batches = [again(one, identifier=f"id-{at}") for at, one in enumerate(batches)]
            assert set(await asyncio.gather(*map(biller.report, batches))) == {Reported.ACCEPTED}
        assert counter.fake.requests.max_in_flight_by_meter == 1
        assert counter.fake.requests.max_in_flight > 1

    at_counter(body)


def test_whoever_waits_for_a_turn_and_is_cancelled_leaves_it_to_the_next() -> None:
    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        gate = asyncio.Event()
        counter.fake.fail(EVENTS, Fault.slow(gate))
        async with counter.biller() as biller:
            first, second, third = (
                asyncio.create_task(biller.report(a_batch(counter.fake, customer, number=number)))
                for number in (1, 2, 3)
            )
            async with asyncio.timeout(5):
                while not counter.fake.requests.in_flight:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            second.cancel()
            gate.set()
            assert await first is await third is Reported.ACCEPTED
            assert second.cancelled() or await asyncio.wait_for(asyncio.gather(second, return_exceptions=True), 1)
        assert counter.fake.metered_units() == 200

    at_counter(body)


@pytest.mark.parametrize("value", [VALUE_MAX + 1, -1, 1.5, Decimal(3), True])
def test_what_is_no_whole_number_of_15_digits_never_leaves(value: Any) -> None:
    """Pitfall 16: no float, no Decimal, no sixteenth digit."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        async with counter.biller() as biller:
            with pytest.raises(NotTaken):
                await biller.report(a_batch(counter.fake, customer, value))
            assert len(counter.fake.requests) == 0
            await biller.report(a_batch(counter.fake, customer, VALUE_MAX))
            assert counter.fake.requests.all[0].params["payload"]["value"] == "999999999999999"

    at_counter(body)


def test_a_customer_whom_stripe_does_not_know_and_a_long_identifier_never_leave() -> None:
    async def body(counter: Counter) -> None:
        async with counter.biller() as biller:
            for batch in (
                a_batch(counter.fake, None),
                again(a_batch(counter.fake, "cus_1"), identifier="x" * 101),
                again(a_batch(counter.fake, "cus_1"), identifier=""),
            ):
                with pytest.raises(NotTaken):
                    await biller.report(batch)
            with pytest.raises(NotTaken):
                await biller.summary(a_batch(counter.fake, None), 0, MINUTE_MS)
        assert len(counter.fake.requests) == 0

    at_counter(body)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.error(503), FaultKind.PROTOCOL),
        (Fault.reset_before(), FaultKind.RESET),
        (Fault.reset_after(), FaultKind.RESET),
        (Fault.timeout(), FaultKind.FIRST_BYTE_TIMEOUT),
    ],
)
def test_what_may_have_been_acted_on_is_a_fault_of_unknown_outcome(fault: Fault, kind: FaultKind) -> None:
    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        counter.fake.fail(EVENTS, fault, times=3)
        async with counter.biller(QuickWire(timeout_s=0.2)) as biller:
            with pytest.raises(Failed) as failed:
                await biller.report(a_batch(counter.fake, customer))
        assert (failed.value.kind, failed.value.retryable) == (kind, False)
        assert len(counter.fake.requests.to(EVENTS)) == 3
        assert counter.config.api_base not in str(failed.value)

    at_counter(body)


def test_a_server_that_is_not_there_has_surely_not_acted() -> None:
    async def run() -> None:
        config = StripeConfig(enabled=True, secret_key=Secret("sk_test_x"), api_base="http://127.0.0.1:9")
        biller = StripeBiller(config, QuickWire())
        with pytest.raises(Failed) as failed:
            await biller.report(a_batch(FakeStripe(), "cus_1"))
        assert failed.value.retryable and failed.value.kind is FaultKind.CONNECT
        await biller.close()
        await biller.close()

    asyncio.run(run())


def test_a_refused_key_waits_for_another_key_and_is_in_no_message() -> None:
    """Else a rolled key would give up every batch that is due."""

    async def body(counter: Counter) -> None:
        async with counter.biller() as biller:
            with pytest.raises(Failed) as failed:
                await biller.report(a_batch(counter.fake, "cus_1"))
        assert failed.value.retryable
        assert "sk_test" not in str(failed.value) and "Invalid API Key" in str(failed.value)

    at_counter(body, key="sk_test_theWrongOne")


def test_what_stripe_never_takes_is_a_clear_no_with_its_words() -> None:
    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        async with counter.biller() as biller:
            with pytest.raises(NotTaken) as refused:
                await biller.report(a_batch(counter.fake, customer, ts_ms=counter.fake.now_ms - 36 * 86_400_000))
        assert "timestamp" in refused.value.public.lower()

    at_counter(body)


def test_the_sum_of_a_minute_is_what_was_counted_in_it() -> None:
    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        minute = counter.fake.now_ms - counter.fake.now_ms % MINUTE_MS
        async with counter.biller() as biller:
            batch = a_batch(counter.fake, customer, 7)
            for number, ts_ms in enumerate((minute - 1, minute, minute + 59_999, minute + MINUTE_MS)):
                await biller.report(again(batch, identifier=f"id-{number}", value=10**number, ts_ms=ts_ms))
            assert await biller.summary(batch, minute, minute + MINUTE_MS) == 110
            assert await biller.summary(batch, minute - MINUTE_MS, minute + 2 * MINUTE_MS) == 1111
            assert await biller.summary(batch, minute + 5 * MINUTE_MS, minute + 6 * MINUTE_MS) == 0
            looked_up = counter.fake.requests.to("/v1/billing/meters")
            with pytest.raises(NotTaken, match="gatekeeper stripe apply"):
                await biller.summary(again(batch, meter="another"), minute, minute + MINUTE_MS)
        assert len(looked_up) == 1

    at_counter(body)


def test_answers_of_the_real_sdk_are_objects_without_get_and_none_of_them_leaves() -> None:
    """Pitfall 44: a StripeObject is no dict; what we return is ours."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        wire = QuickWire()
        sdk = stripe.StripeClient(
            counter.fake.secret_key, http_client=wire, base_addresses={"api": str(counter.config.api_base)}
        )
        found = await sdk.v1.customers.retrieve_async(customer)
        with pytest.raises(AttributeError):
            found.get("email")  # type: ignore[attr-defined]
        await wire.aclose()
        async with counter.biller() as biller:
            answers = [
                await biller.report(a_batch(counter.fake, customer)),
                await biller.summary(a_batch(counter.fake, customer), 0, MINUTE_MS),
            ]
        assert [type(answer) for answer in answers] == [Reported, int]

    at_counter(body)


_CHILD = """
import asyncio, sys
from gatekeeper.billers.stripe import StripeBiller
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.rules.billing import Batch, BatchState

async def run(url, customer, now_ms):
    biller = StripeBiller(StripeConfig(enabled=True, secret_key=Secret("sk_test_fake"), api_base=url))
    for number in range(3):
        named = f"bat_{number}"
        await biller.report(Batch(named, "ada", "gatekeeper_units", 0, now_ms, 1, now_ms, named, BatchState.WAITING,
                                  False, 0, 0, now_ms, now_ms, account=customer))
    await biller.close()

asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_neither_the_platform_nor_metrics_are_sent_and_no_file_is_written(tmp_path: Path) -> None:
    """Pitfall 54: telemetry would keep an id in a file of the home directory and send the platform's name.

    In a process of its own: the SDK looks for its file once."""
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")

    async def body(counter: Counter) -> list[dict[str, str]]:
        customer = await a_customer(counter)
        arguments = ("-c", _CHILD, str(counter.config.api_base), customer, str(counter.fake.now_ms))
        env = {**os.environ, **{name: str(tmp_path) for name in names}, "PYTHONDONTWRITEBYTECODE": "1"}
        child = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=env)
        assert await child.wait() == 0
        return [dict(request.headers) for request in counter.fake.requests.all]

    sent = at_counter(body)
    assert len(sent) == 3
    for headers in sent:
        assert "x-stripe-client-telemetry" not in headers
        about = json.loads(headers["x-stripe-client-user-agent"])
        assert not {"platform", "uname", "telemetry_id", "source"} & about.keys()
        assert platform.platform() not in str(headers)
    assert list(tmp_path.iterdir()) == []


def test_no_body_and_no_key_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        async with counter.biller() as biller:
            await biller.report(a_batch(counter.fake, customer))

    at_counter(body)
    assert "bat_1-1" not in caplog.text and "sk_test" not in caplog.text


def test_public_text_hides_what_looks_like_a_key() -> None:
    said = stripe.InvalidRequestError("No such key: sk_live_abc123, rk_test_*****9; whsec_x. " + "long " * 100, None)
    text = public_text(said)
    assert "abc123" not in text and "*****9" not in text and "whsec_x" not in text
    assert text.startswith("No such key: ***, ***; ***.") and len(text) <= 303


def test_a_key_says_which_mode_it_is_for_or_is_refused() -> None:
    assert is_live(StripeConfig(secret_key=Secret("sk_live_x"))) and is_live(
        StripeConfig(secret_key=Secret("rk_live_x"))
    )
    assert not is_live(StripeConfig(secret_key=Secret("sk_test_x")))
    for wrong in (Secret("pk_live_x"), Secret("sk_org_x"), None):
        with pytest.raises(NotTaken):
            is_live(StripeConfig(secret_key=wrong))


def test_the_process_that_dies_in_the_middle_reports_again_without_counting_twice() -> None:
    """Pitfall 2 and Pitfall 3, as the adapter has them: before or after Stripe took it, the identifier is the same."""

    async def body(counter: Counter) -> None:
        customer = await a_customer(counter)
        for number, after in enumerate((False, True)):
            batch = a_batch(counter.fake, customer, number=number)
            async with counter.biller(QuickWire(dies_at=0, after=after)) as biller:
                with pytest.raises(Killed):
                    await biller.report(batch)
            async with counter.biller() as biller:
                assert await biller.report(batch) is (Reported.DUPLICATE if after else Reported.ACCEPTED)
        assert counter.fake.metered_units() == 200

    at_counter(body)
