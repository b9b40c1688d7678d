"""Plans brought into an account through the real SDK, and every way in which that can break off."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from billers_stand import METER, Counter, Killed, QuickWire, StillClock, at_counter, at_mixed_counter, sdk_of, secret_of

from gatekeeper.billing.catalogue import ROUNDS_MAX, Applied, apply, compare, price_ids
from gatekeeper.demo.stripe import FakeStripe, Fault
from gatekeeper.errors import Fault as Failed
from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.money import Price as Overage
from gatekeeper.rules.billing import NotTaken
from gatekeeper.rules.catalogue import SNAPSHOT_EVENTS, THIN_EVENTS, CannotSell, PlanPrices, Wanted, wanted
from gatekeeper.rules.limits import UNITS, Mode, StockLimit, Window
from gatekeeper.rules.limits import Scope as Whom
from gatekeeper.rules.plans import Plan

URL = "https://llm.example.com"


def a_plan(plan_id: str, monthly: int, included: int | None, overage: str | None, **more: Any) -> Plan:
    """A plan as its file would say."""
    mode = Mode.BLOCK if overage is None else Mode.OVERAGE
    cap = None if included is None else included * MICRO_PER_UNIT
    quota = StockLimit("quota", Whom.CUSTOMER, UNITS, Window.BILLING_PERIOD, cap, mode)
    price = None if overage is None else Overage(Decimal(overage))
    return Plan(plan_id, plan_id.title(), Decimal(monthly), quota, price, **more)


FREE = a_plan("free", 0, 10_000, None)
STARTER = a_plan("starter", 29, 100_000, "0.002")
PRO = a_plan("pro", 99, 1_000_000, "0.0000000001")
ENTERPRISE = a_plan("enterprise", 499, None, None)


def of(*plans: Plan, url: str | None = URL) -> Wanted:
    """What these need."""
    return wanted({plan.id: plan for plan in plans}, METER, url, live=False)


ALL = of(FREE, STARTER, PRO, ENTERPRISE)


async def applied(
    counter: Counter,
    want: Wanted = ALL,
    wire: QuickWire | None = None,
    nonce: str = "n1",
    shown: list[str] | None = None,
) -> Applied:
    """One run."""
    seen: list[str] = [] if shown is None else shown
    async with counter.catalogue(wire) as catalogue:
        return await apply(catalogue, want, StillClock(), nonce, lambda change, secret: seen.append(secret))


async def titles(counter: Counter, want: Wanted = ALL) -> list[str]:
    """What a plan would say."""
    async with counter.catalogue() as catalogue:
        difference, _ = await compare(catalogue, want, StillClock())
        assert difference.problems == ()
        return [f"{change.action} {change.kind} {change.title}" for change in difference.changes]


def stands(fake: FakeStripe) -> Any:
    """The account without ids and times, as it can be sold from."""
    meters = [(one["event_name"], one["status"], one["default_aggregation"]) for one in fake.objects("billing.meter")]
    products = sorted((one["id"], one["name"], one["active"], one["metadata"]) for one in fake.objects("product"))
    prices = sorted(
        (
            one["lookup_key"] or "",
            one["product"],
            one["unit_amount_decimal"] or "",
            str(one["tiers"]),
            str(one["metadata"]),
        )
        for one in fake.objects("price")
        if one["active"]
    )
    portals = [
        (one["features"], one["default_return_url"], one["metadata"])
        for one in fake.objects("billing_portal.configuration")
        if one["active"]
    ]
    endpoints = [
        (one["url"], sorted(one["enabled_events"]), one["status"], one["metadata"])
        for one in fake.objects("webhook_endpoint")
    ]
    thin = [
        (one["webhook_endpoint"]["url"], sorted(one["enabled_events"]), one["metadata"])
        for one in fake.objects("v2.core.event_destination")
    ]
    return meters, products, prices, portals, endpoints, thin


def test_an_empty_account_is_filled_and_then_there_is_nothing_to_do() -> None:
    async def body(counter: Counter) -> None:
        assert len(await titles(counter)) == 12
        assert not counter.fake.objects("product"), "a plan changes nothing"
        secrets: list[str] = []
        done = await applied(counter, shown=secrets)
        assert len(done.done) == 12
        assert await titles(counter) == []
        again = await applied(counter, shown=secrets)
        assert again.done == () and again.sold == done.sold
        endpoints = [*counter.fake.objects("webhook_endpoint"), *counter.fake.objects("v2.core.event_destination")]
        assert len(secrets) == len(endpoints) == 2 and len(set(secrets)) == 2
        assert all(one["metadata"]["gatekeeper_secret"] == "shown" for one in endpoints)
        prices = done.sold.prices
        assert sorted(prices) == ["enterprise", "pro", "starter"]
        assert prices["enterprise"].metered is None
        assert {done.sold.plan_of[one] for one in prices["starter"] if one} == {"starter"}

    at_counter(body)


def test_prices_are_cents_on_the_wire_in_plain_digits() -> None:
    """Pitfall 17 and Pitfall 18: $0.002 is 0.2 cents, and $0.0000000001 is 0.00000001 and not 1E-8."""

    async def body(counter: Counter) -> None:
        done = await applied(counter)
        starter, pro = (counter.fake.object(str(done.sold.prices[name].metered)) for name in ("starter", "pro"))
        assert [(one["up_to"], one["unit_amount_decimal"]) for one in starter["tiers"]] == [
            (100_000, "0"),
            (None, "0.2"),
        ]
        assert [one["unit_amount_decimal"] for one in pro["tiers"]] == ["0", "0.00000001"]
        assert counter.fake.object(str(done.sold.prices["starter"].licensed))["unit_amount"] == 2_900
        sent = [str(request.params) for request in counter.fake.requests.to("/v1/prices", "POST")]
        assert sent and not any("E-" in one for one in sent)

    at_counter(body)


def test_the_hundred_thousand_and_first_token_costs_a_fifth_of_a_cent() -> None:
    """Pitfall 18 on an invoice: 50 tokens above what is included are 10 cents beside $29."""

    async def body(counter: Counter) -> None:
        done = await applied(counter)
        wire = QuickWire()
        sdk = sdk_of(counter, wire)
        customer = (await sdk.v1.customers.create_async({"email": "a@b.c"})).id
        items: Any = [{"price": one} for one in done.sold.prices["starter"]]
        made = await sdk.v1.subscriptions.create_async({"customer": customer, "items": items})
        event: Any = {
            "event_name": METER,
            "payload": {"stripe_customer_id": customer, "value": "100050"},
            "identifier": "one",
            "timestamp": counter.fake.now_ms // 1000 + 60,
        }
        await sdk.v1.billing.meter_events.create_async(event)
        preview = await sdk.v1.invoices.create_preview_async({"subscription": made.id})
        metered = [row.amount for row in preview.lines.data if row.quantity in (100_000, 50)]
        assert sorted(metered) == [0, 10]
        await wire.aclose()

    at_counter(body)


def test_a_changed_price_is_a_new_one_and_the_old_one_is_archived() -> None:
    async def body(counter: Counter) -> None:
        first = (await applied(counter)).sold
        dearer = of(FREE, a_plan("starter", 39, 100_000, "0.001"), PRO, ENTERPRISE)
        assert await titles(counter, dearer) == [
            "create price starter licensed",
            "archive price starter licensed",
            "create price starter metered",
            "archive price starter metered",
        ]
        second = (await applied(counter, dearer)).sold
        assert await titles(counter, dearer) == []
        for old, new in zip(first.prices["starter"], second.prices["starter"], strict=True):
            assert not counter.fake.object(str(old))["active"]
            assert counter.fake.object(str(new))["active"]
            # Whoever pays the old one is still on the plan.
            assert second.plan_of[str(old)] == "starter"
        # And back: the old prices, not a third pair.
        assert (await applied(counter)).sold.prices == first.prices

    at_counter(body)


def test_the_default_price_of_a_product_moves_before_the_old_one_is_archived() -> None:
    """Stripe refuses to archive a default price."""

    async def body(counter: Counter) -> None:
        old = (await applied(counter)).sold.prices["enterprise"].licensed
        wire = QuickWire()
        await sdk_of(counter, wire).v1.products.update_async("gatekeeper_enterprise", {"default_price": str(old)})
        await wire.aclose()
        counter.fake.requests.clear()
        dearer = of(FREE, STARTER, PRO, a_plan("enterprise", 599, None, None))
        new = (await applied(counter, dearer)).sold.prices["enterprise"].licensed
        assert counter.fake.object("gatekeeper_enterprise")["default_price"] == new != old
        posts = [(one.path, dict(one.params)) for one in counter.fake.requests.to("*", "POST")]
        assert posts[1:] == [
            ("/v1/products/gatekeeper_enterprise", {"default_price": new}),
            (f"/v1/prices/{old}", {"active": "false"}),
        ]

    at_counter(body)


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("/v1/products/gatekeeper_starter", {"name": "Beginner"}, "update product starter"),
        ("/v1/products/gatekeeper_starter", {"active": False}, "update product starter"),
        ("/v1/prices/{licensed}", {"active": False}, "update price starter licensed"),
        ("/v1/prices/{metered}", {"lookup_key": "else"}, "update price starter metered"),
        ("/v1/webhook_endpoints/{we}", {"disabled": True}, f"update endpoint {URL}/webhooks/stripe (snapshot)"),
        (
            "/v1/webhook_endpoints/{we}",
            {"enabled_events": ["invoice.paid"]},
            f"update endpoint {URL}/webhooks/stripe (snapshot)",
        ),
        (
            "/v1/billing_portal/configurations/{bpc}",
            {"features": {"subscription_cancel": {"enabled": False}}},
            "update portal customer portal",
        ),
        ("/v1/billing/meters/{mtr}", {"display_name": "?"}, f"update meter {METER}"),
        ("/v1/billing/meters/{mtr}/deactivate", {}, f"update meter {METER}"),
    ],
)
def test_what_somebody_changes_by_hand_is_shown_and_put_right(path: str, params: dict[str, Any], expected: str) -> None:
    async def body(counter: Counter) -> None:
        sold = (await applied(counter)).sold
        before = stands(counter.fake)
        ids = {
            "licensed": sold.prices["starter"].licensed,
            "metered": sold.prices["starter"].metered,
            "we": counter.fake.objects("webhook_endpoint")[0]["id"],
            "bpc": sold.portal_id,
            "mtr": counter.fake.objects("billing.meter")[0]["id"],
        }
        wire = QuickWire()
        await sdk_of(counter, wire).raw_request_async("post", path.format(**ids), **params)
        await wire.aclose()
        assert await titles(counter) == [expected]
        await applied(counter)
        assert stands(counter.fake) == before

    at_counter(body)


def test_a_webhook_endpoint_that_was_deleted_is_made_again_under_another_key() -> None:
    """Pitfall 13: its first key only repeats the answer of a day ago, with a secret that signs nothing."""

    async def body(counter: Counter) -> None:
        secrets: list[str] = []
        await applied(counter, shown=secrets)
        wire = QuickWire()
        await sdk_of(counter, wire).v1.webhook_endpoints.delete_async(counter.fake.objects("webhook_endpoint")[0]["id"])
        await wire.aclose()
        old = list(secrets)
        await applied(counter, nonce="n2", shown=secrets)
        (made,) = counter.fake.objects("webhook_endpoint")
        assert made["metadata"]["gatekeeper_secret"] == "shown"
        assert len(secrets) == 3 and secrets[2] not in old

    at_counter(body)


@pytest.mark.parametrize("applied_there", [False, True])
@pytest.mark.parametrize("path", ["/v1/products", "/v1/prices", "/v1/billing/meters", "/v1/webhook_endpoints"])
def test_a_500_that_sticks_to_a_key_is_left_behind_with_the_key(path: str, applied_there: bool) -> None:
    """Pitfall 13: the account is read again, and what still lacks is made under another key."""

    async def body(counter: Counter) -> None:
        counter.fake.fail(path, Fault.error(sticks=True, applied=applied_there), method="POST")
        await applied(counter)
        assert await titles(counter) == []
        return stands(counter.fake)

    smooth = at_counter(lambda counter: _after(applied(counter), lambda: stands(counter.fake)))
    assert at_counter(body) == smooth


def test_a_429_is_waited_for_as_long_as_it_asks() -> None:
    """Pitfall 11: Retry-After is honoured, and an end comes."""

    async def body(counter: Counter) -> None:
        clock = StillClock()
        counter.fake.fail("/v1/products", Fault.too_many(7), Fault.too_many(9_999), Fault.too_many(None), method="POST")
        async with counter.catalogue() as catalogue:
            await apply(catalogue, ALL, clock, "n", lambda change, secret: None)
            assert clock.slept_s == [7, 60, 8]
            counter.fake.fail("/v1/billing/meters", Fault.too_many(1), times=50)
            with pytest.raises(Failed):
                await compare(catalogue, ALL, clock)
        counter.fake.faults.disarm()

    at_counter(body)


def test_what_goes_on_failing_ends_with_its_reason() -> None:
    async def body(counter: Counter) -> None:
        counter.fake.fail("/v1/products", Fault.error(503), method="POST", times=100)
        with pytest.raises(Failed, match="503"):
            await applied(counter)
        assert len(counter.fake.requests.to("/v1/products", "POST")) == ROUNDS_MAX * 3

    at_counter(body)


def test_a_run_that_is_killed_anywhere_is_finished_by_the_next() -> None:
    """Every request of a run once: killed before it was sent, and killed when it had taken effect."""

    want = of(STARTER)

    async def smooth(counter: Counter) -> tuple[Any, int]:
        wire = QuickWire()
        await applied(counter, want, wire)
        return stands(counter.fake), wire.sent

    expected, requests = at_counter(smooth)
    assert requests > 25

    async def killed(counter: Counter, at: int, after: bool) -> None:
        secrets: list[str] = []
        with pytest.raises(Killed):
            await applied(counter, want, QuickWire(dies_at=at, after=after), shown=secrets)
        await applied(counter, want, nonce="n2", shown=secrets)
        assert stands(counter.fake) == expected, (at, after)
        # The secret of what stands was shown.
        endpoints = [*counter.fake.objects("webhook_endpoint"), *counter.fake.objects("v2.core.event_destination")]
        for one in endpoints:
            assert secret_of(counter.fake, one["id"]) in secrets, (at, after)

    for at in range(requests):
        for after in (False, True):
            at_counter(lambda counter, at=at, after=after: killed(counter, at, after))


@pytest.mark.parametrize("fault", [Fault.reset_before(), Fault.reset_after()])
def test_a_connection_that_breaks_once_anywhere_changes_nothing_of_the_end(fault: Fault) -> None:
    want = of(STARTER)

    async def smooth(counter: Counter) -> Any:
        await applied(counter, want)
        return stands(counter.fake), [(one.method, one.path) for one in counter.fake.requests.all]

    expected, calls = at_counter(smooth)

    async def broken(counter: Counter, method: str, path: str, times: int) -> None:
        counter.fake.fail(path, fault, method=method, times=times)
        await applied(counter, want)
        assert counter.fake.faults.left == 0, (method, path)
        assert stands(counter.fake) == expected, (method, path)

    for method, path in dict.fromkeys(calls):
        at_counter(lambda counter, method=method, path=path: broken(counter, method, path, 1))
    # Three in a row are more than the SDK tries: what became of it is found out by reading.
    for path in ("/v1/products", "/v1/prices", "/v1/billing/meters", "/v1/webhook_endpoints"):
        at_counter(lambda counter, path=path: broken(counter, "POST", path, 3))


def test_ids_by_hand_are_honoured_and_only_checked() -> None:
    async def body(counter: Counter) -> None:
        wire = QuickWire()
        sdk = sdk_of(counter, wire)
        product = (await sdk.v1.products.create_async({"name": "By hand"})).id
        made = await sdk.v1.prices.create_async(
            {"product": product, "currency": "usd", "unit_amount": 2_900, "recurring": {"interval": "month"}}
        )
        plan = replace(a_plan("starter", 29, 10, None), stripe_price=made.id)
        assert made.id not in str(await titles(counter, of(plan, url=None)))
        done = await applied(counter, of(plan, url=None))
        assert done.sold.prices == {"starter": PlanPrices(licensed=made.id)}
        assert [one["id"] for one in counter.fake.objects("product")] == [product]
        await sdk.v1.prices.update_async(made.id, {"active": False})
        with pytest.raises(CannotSell, match="is archived"):
            await applied(counter, of(plan, url=None))
        await wire.aclose()

    at_counter(body)


def test_price_ids_are_there_for_subscriptions_or_it_says_what_is_missing() -> None:
    async def body(counter: Counter) -> None:
        async with counter.catalogue() as catalogue:
            with pytest.raises(CannotSell, match="run 'gatekeeper stripe apply'"):
                await price_ids(catalogue, ALL, StillClock())
            done = await applied(counter)
            assert await price_ids(catalogue, ALL, StillClock()) == done.sold

    at_counter(body)


@pytest.mark.parametrize("live", [False, True])
def test_a_key_of_one_mode_never_touches_objects_of_the_other(live: bool) -> None:
    """Pitfall 49: as a test event against a live key is refused, so is an account with objects of the other mode."""
    # A server that mixes them up: it takes the key of the one mode and answers with objects of the other.
    fake, key = FakeStripe(livemode=not live), "sk_live_fake" if live else "sk_test_fake"

    async def body(counter: Counter) -> None:
        wire = QuickWire()
        await sdk_of(counter, wire, key).v1.products.create_async({"name": "x"})
        await wire.aclose()
        before = len(counter.fake.requests)
        with pytest.raises(NotTaken, match="mode"):
            await applied(counter)
        assert all(one.method == "GET" for one in counter.fake.requests.all[before:])

    at_mixed_counter(body, fake, key)


def test_values_and_no_objects_of_the_sdk_come_back() -> None:
    """Pitfall 44: everything that leaves the room is made of our own types."""

    async def body(counter: Counter) -> None:
        await applied(counter)
        async with counter.catalogue() as catalogue:
            account = await catalogue.read(())
        assert account.prices and account.portals and account.endpoints
        assert _modules(account) <= {"gatekeeper", "builtins", "decimal"}
        assert {frozenset(one.endpoint.events) for one in account.endpoints} == {SNAPSHOT_EVENTS, THIN_EVENTS}

    at_counter(body)


def _modules(value: Any) -> set[str]:
    found = {type(value).__module__.partition(".")[0]}
    inside: list[Any] = []
    if hasattr(value, "__dataclass_fields__"):
        inside = [getattr(value, name) for name in value.__dataclass_fields__]
    elif isinstance(value, (tuple, frozenset)):
        inside = list(value)
    return found.union(*map(_modules, inside))


async def _after(work: Any, look: Callable[[], Any]) -> Any:
    await work
    return look()
