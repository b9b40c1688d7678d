"""A month in a minute (and a second one): 50 customers on 4 plans subscribe, use, move up and down, fail to pay, end.

The rule: every invoice of the fake Stripe equals, to the cent, what this file works out by itself from who bought what
when and used how much; and the units on all invoices are the units of the ledger.
"""

import calendar
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from billing_shop import Shop, at_shop

from gatekeeper.billing.subscriptions import When
from gatekeeper.demo.stripe import Card
from gatekeeper.rules.notices import Kind

# A fee in cents, what it includes, and cents for each unit above it; None: nothing is counted.
SOLD = {"starter": (2_900, 100, Decimal(2)), "pro": (9_900, 1_000, Decimal("1.01")), "enterprise": (49_900, None, None)}
JANUARY_31 = datetime(2027, 1, 31, 13, 5, tzinfo=UTC).timestamp()
PEOPLE = 50


@dataclass
class Person:
    """Who bought what from which second on, and used how many units of what in which second."""

    name: str
    plans: list[tuple[int, str]] = field(default_factory=list)
    used: list[tuple[int, int]] = field(default_factory=list)
    anchor_s: int = 0
    trial_end_s: int = 0
    ended_s: int | None = None

    def turns(self) -> list[int]:
        """When his months begin: on the anchor's day, or on the last of a shorter month."""
        at, found = datetime.fromtimestamp(self.anchor_s, UTC), []
        for count in range(6):
            year, month = divmod(at.year * 12 + at.month - 1 + count, 12)
            day = min(at.day, calendar.monthrange(year, month + 1)[1])
            found.append(int(at.replace(year=year, month=month + 1, day=day).timestamp()))
        return found

    def next_turn(self, second: float) -> int:
        return min(turn for turn in self.turns() if turn > second)

    def plan_at(self, second: float) -> str:
        return [plan for since, plan in self.plans if since <= second][-1]

    def overage(self, before_s: int) -> int:
        """Cents for the units since the last turn, or since he was moved, whichever was later."""
        _, included, cents = SOLD[self.plan_at(before_s - 1)]
        marks = [*self.turns(), *(since for since, _ in self.plans), self.trial_end_s]
        since_s = max(mark for mark in marks if mark < before_s)
        units = sum(units for at, units in self.used if max(since_s, self.trial_end_s) <= at < before_s)
        return 0 if included is None else rounded(max(0, units - included) * cents)

    def expected(self, at_s: int, reason: str) -> int:
        """What an invoice of that second must come to."""
        if reason == "subscription_create":
            return 0 if self.trial_end_s else SOLD[self.plan_at(at_s)][0]
        if self.ended_s == at_s:
            return self.overage(at_s)
        if reason == "subscription_cycle":
            return self.overage(at_s) + SOLD[self.plan_at(at_s)][0]
        assert reason == "subscription_update", reason
        last_s, next_s = max(turn for turn in self.turns() if turn < at_s), self.next_turn(at_s)
        share = Decimal(next_s - at_s) / Decimal(next_s - last_s)
        old, new = SOLD[self.plan_at(at_s - 1)][0], SOLD[self.plan_at(at_s)][0]
        return self.overage(at_s) + rounded(new * share) - rounded(old * share)


def rounded(cents: Decimal) -> int:
    return int(cents.quantize(Decimal(1), ROUND_HALF_UP))


async def subscribed(shop: Shop, number: int) -> Person:
    """Four plans in turn; the fourth is free, and nothing of it is at Stripe."""
    person = Person(f"user{number:02d}")
    await shop.enter(person.name)
    plan = ("starter", "pro", "enterprise", "free")[number % 4]
    if plan != "free":
        sub = await shop.subscribe(person.name, plan)
        person.plans.append((sub["start_date"], plan))
        person.anchor_s, person.trial_end_s = sub["billing_cycle_anchor"], sub["trial_end"] or 0
    return person


async def use(shop: Shop, people: list[Person], chance: random.Random) -> None:
    """Some use something; their plan is the one that they pay for at that second."""
    now_s = int(shop.clock.now_s)
    for person in people:
        if chance.random() < 0.5:
            continue
        customer = await shop.customer(person.name)
        plan = customer.plan_id
        sold = person.plans and (person.ended_s is None or now_s < person.ended_s)
        if not sold and plan == "enterprise":
            # Its end shuts out.
            assert customer.disabled_ms is not None
            continue
        assert plan == (person.plan_at(now_s) if sold else "free"), (person, plan)
        units = chance.choice([1, 7, 60, 130, 900])
        await shop.use(person.name, units)
        if sold:
            person.used.append((now_s, units))


async def act(shop: Shop, day: int, people: dict[int, Person]) -> None:
    """What is asked for on a day: numbers are customers."""
    now_s = shop.clock.now_s
    if day == 12:
        for number in (0, 4, 8, 12):
            await shop.subscriptions.change(people[number].name, "pro")
            people[number].plans.append((int(shop.clock.now_s), "pro"))
    if day == 20:
        for number in (1, 5, 2, 6):
            await shop.subscriptions.change(people[number].name, "starter")
            people[number].plans.append((people[number].next_turn(now_s), "starter"))
    if day in (24, 32):
        for number in (16, 20, 9):
            account = (await shop.customer(people[number].name)).stripe_customer_id
            shop.fake.set_card(account, Card.DECLINES if day == 24 else Card.WORKS)
    if day == 36:
        for number in (24, 28, 13):
            await shop.subscriptions.cancel(people[number].name)
            people[number].ended_s = people[number].next_turn(now_s)
    if day == 40:
        for number in (32, 17, 10):
            await shop.subscriptions.cancel(people[number].name, When.NOW)
            people[number].ended_s = int(shop.clock.now_s)


@pytest.mark.timeout(300)
def test_every_invoice_is_right_to_the_cent_and_no_unit_is_lost(sqlite_url):
    async def body(shop: Shop) -> None:
        chance = random.Random(6)
        shop.clock.now_s = JANUARY_31
        people = {}
        for number in range(PEOPLE):
            people[number] = await subscribed(shop, number)
            shop.clock.now_s += 7
        for day in range(4, 65, 4):
            await shop.advance(days=4)
            await use(shop, list(people.values()), chance)
            await shop.advance(s=600)
            await act(shop, day, people)
        # The end: what is used by now is invoiced now.
        for person in people.values():
            if person.plans and person.ended_s is None:
                await shop.subscriptions.cancel(person.name, When.NOW)
                person.ended_s = int(shop.clock.now_s)
        await shop.advance(days=2)

        accounts = {(await shop.customer(person.name)).stripe_customer_id: person for person in people.values()}
        invoices = shop.fake.objects("invoice")
        assert len(invoices) > 3 * PEOPLE * 3 // 4
        for invoice in invoices:
            person = accounts[invoice["customer"]]
            at_s = invoice["created"]
            assert invoice["total"] == person.expected(at_s, invoice["billing_reason"]), (invoice, person)
        assert {invoice["status"] for invoice in invoices} == {"paid"}
        reasons = {"subscription_create", "subscription_cycle", "subscription_update"}
        assert {invoice["billing_reason"] for invoice in invoices} == reasons
        assert len(await shop.told(Kind.PAYMENT_FAILED)) >= 3

        counted = 0
        for person in people.values():
            of_units = [(at, n) for at, n in person.used if person.plan_at(at) != "enterprise"]
            counted += sum(units for at, units in of_units if at >= person.trial_end_s)
        assert shop.fake.invoiced_units() == counted
        ledger = 0
        for person in people.values():
            lines = await shop.store.statement_lines(person.name, 0, int(shop.clock.now_s * 1000) + 1)
            ledger += sum(line.units_micro for line in lines if line.plan_id in ("starter", "pro"))
        assert shop.fake.metered_units() * 1_000_000 == ledger
        assert {batch.state for batch in await shop.store.batches(limit=10_000)} == {"sent"}

    at_shop(sqlite_url, body)
