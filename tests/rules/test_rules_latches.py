"""A daily cap that was hit stays closed until the billing period turns; the row beside it decides."""

from dataclasses import replace
from decimal import Decimal

import pytest

from gatekeeper.rules import budgets, holds
from gatekeeper.rules.declared import DeclaredLimit
from gatekeeper.rules.holds import Hold, HoldState
from gatekeeper.rules.latches import is_latch, mistake, seen
from gatekeeper.rules.limits import (
    CounterRow,
    Denied,
    Granted,
    Mode,
    Pair,
    Reason,
    Release,
    Scope,
    StockLimit,
    Window,
)
from gatekeeper.rules.lines import Bounds, Subject, Take, stock_lines
from gatekeeper.rules.notices import crossed
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

PLAN = Plan("pro", "Pro", Decimal(99), None)
# Noon of a day in the middle of a billing period that began on the 5th at 06:00.
ANCHOR = 1_780_639_200_000
NOON = ANCHOR + 10 * DAY_MS + 6 * HOUR_MS
TURN = 1_783_231_200_000
DAILY = StockLimit("daily", Scope.CUSTOMER, "dollars", Window.DAY, 500, release=Release.BILLING_PERIOD)
WHO = Subject("acme", "pro", "chat", ANCHOR, model="gpt-4o")


def lines(now_ms=NOON, limit=DAILY, who=WHO, resets=None, take=100):
    bounds = Bounds(dollars=Take(take, 0))
    return stock_lines(PLAN, who, bounds, now_ms, [DeclaredLimit(limit)], resets or {})


class Book:
    """The rows of one customer, and calls on them."""

    def __init__(self) -> None:
        self.rows = {}

    def ask(self, stock, now_ms=NOON):
        for line in stock:
            self.rows.setdefault(line.key, CounterRow())
        decision = budgets.decide(stock, (), 0, 0, self.rows, {}, now_ms)
        self.rows |= decision.counters
        return decision

    def settle(self, stock, dollars, state=HoldState.OPEN, before=None, model="gpt-4o"):
        hold = Hold(holds.held_lines(stock, 0), (), tuple(stock))
        if before is not None:
            taken = {line.key: line.actual for line in before.hold.lines}
            hold = hold._replace(lines=tuple(line._replace(actual=taken[line.key]) for line in hold.lines))
        ending = holds.settle(hold, state, {"dollars": dollars}, None, self.rows, {}, NOON, model=model)
        self.rows |= ending.counters
        return ending

    def call(self, dollars, now_ms=NOON, **more):
        stock = lines(now_ms, **more)
        verdict = self.ask(stock, now_ms).verdict
        if isinstance(verdict, Granted):
            self.settle(stock, dollars)
        return verdict


def test_a_limit_that_waits_has_a_latch_and_any_other_has_none():
    day, latch = lines()
    assert (day.key.window, day.ends_ms) == ("day", NOON + DAY_MS // 2)
    assert is_latch(latch.key) and not is_latch(day.key)
    assert (latch.key.start_ms, latch.ends_ms, latch.amount(10**6)) == (ANCHOR, TURN, 0)
    for other in (replace(DAILY, release=Release.WINDOW), replace(DAILY, cap=None), replace(DAILY, cap=0)):
        assert len(lines(limit=other)) == 1


def test_a_cap_that_was_hit_stays_closed_the_next_day_and_opens_with_the_period():
    book = Book()
    assert isinstance(book.call(100), Granted)
    assert isinstance(book.call(400), Granted)
    denied = book.call(0)
    # On the day itself too: it is the latch that keeps the call out longest.
    assert (denied.reason, denied.retry_after_s) == (Reason.CLOSED, (TURN - NOON) // 1000)
    tomorrow = book.call(0, NOON + DAY_MS)
    assert isinstance(tomorrow, Denied)
    assert tomorrow.reason is Reason.CLOSED
    state = tomorrow.limit
    assert (state.name, state.dimension, state.window, state.cap, state.used) == ("daily", "dollars", "day", 500, 500)
    assert (state.remaining, state.resets_ms) == (0, TURN)
    # Waiting Retry-After succeeds, and not a second earlier.
    waited = NOON + DAY_MS + (tomorrow.retry_after_s or 0) * 1000
    assert isinstance(book.call(0, waited - 1_000), Denied)
    assert isinstance(book.call(0, waited), Granted)


def test_a_cap_that_was_not_hit_opens_with_its_window():
    book = Book()
    assert isinstance(book.call(499), Granted)
    assert book.ask(lines(take=100)).verdict.reason is Reason.EXCEEDS_LIMIT
    assert isinstance(book.call(0, NOON + DAY_MS), Granted)


def test_what_ends_after_midnight_closes_the_day_that_follows():
    book = Book()
    stock = lines(take=500)
    assert isinstance(book.ask(stock).verdict, Granted)
    assert isinstance(book.call(1, NOON + DAY_MS), Granted)
    book.settle(stock, 500)
    assert book.call(1, NOON + DAY_MS).reason is Reason.CLOSED


def test_calls_in_flight_go_on_and_what_they_take_is_counted():
    book = Book()
    first, second = lines(), lines()
    assert isinstance(book.ask(first).verdict, Granted)
    assert isinstance(book.ask(second).verdict, Granted)
    book.settle(first, 600)
    more = budgets.extend(second, 0, 50, 1, book.rows, NOON)
    assert more.verdict == Granted(50, more.verdict.stock)
    book.settle(second, 70)
    assert {key.window: row for key, row in book.rows.items()} == {
        "day": CounterRow(670, 0),
        "billing_period": CounterRow(500, 0),
    }


def test_a_reset_and_a_larger_cap_open_it():
    book = Book()
    book.call(500)
    reset = {(Scope.CUSTOMER, "acme", "dollars", Window.DAY): NOON + 1_000}
    assert book.call(1, NOON + 2_000).reason is Reason.CLOSED
    assert isinstance(book.call(1, NOON + 2_000, resets=reset), Granted)
    # Days later it still counts.
    assert isinstance(book.call(1, NOON + 5 * DAY_MS, resets=reset), Granted)
    larger = replace(DAILY, cap=501)
    other = Book()
    other.call(500)
    assert isinstance(other.call(1, NOON + DAY_MS, limit=larger), Granted)
    assert other.call(1, NOON + DAY_MS, limit=replace(DAILY, cap=499)).reason is Reason.CLOSED


def test_a_correction_that_takes_the_use_back_opens_it_and_one_that_finds_it_closes_it():
    for guessed, true, closed in ((500, 499, False), (499, 500, True), (500, 600, True), (10, 20, False)):
        book = Book()
        stock = lines(take=500)
        book.ask(stock)
        recovered = book.settle(stock, guessed)
        book.settle(stock, true, HoldState.RECOVERED, recovered)
        latch = next(row for key, row in book.rows.items() if is_latch(key))
        assert latch == CounterRow(500 if closed else 0, 0)


def test_a_record_names_a_latch_only_where_it_closed_it():
    book = Book()
    for dollars, named in ((100, False), (400, True)):
        stock = lines()
        book.ask(stock)
        ending = book.settle(stock, dollars)
        told = holds.counted(ending.hold.lines, "gpt-4o")
        assert any(is_latch(line.key) for line in told) is named
    # The law of counters: its sum is what its records say.
    assert [line.actual for line in told if is_latch(line.key)] == [500]


def test_a_model_that_did_not_serve_closes_nothing():
    limit = replace(DAILY, scope=Pair.CUSTOMER_MODEL)
    book = Book()
    stock = lines(limit=limit)
    book.ask(stock)
    book.rows[stock[0].key] = CounterRow(500, 100)
    book.settle(stock, 50, model="cheap")
    assert book.rows[stock[1].key] == CounterRow(0, 0)


def test_of_two_limits_on_one_row_the_smaller_cap_closes():
    small, large = DeclaredLimit(DAILY), DeclaredLimit(replace(DAILY, name="large", cap=900))
    for both in ((small, large), (large, small)):
        stock = stock_lines(PLAN, WHO, Bounds(dollars=Take(1, 0)), NOON, both)
        book = Book()
        book.ask(stock)
        book.settle(stock, 500)
        later = stock_lines(PLAN, WHO, Bounds(dollars=Take(1, 0)), NOON + DAY_MS, both)
        denied = book.ask(later, NOON + DAY_MS).verdict
        assert (denied.limit.name, denied.reason) == ("daily", Reason.CLOSED)


def test_a_latch_tells_no_threshold_of_its_own():
    stock = lines()
    before = {line.key: CounterRow() for line in stock}
    after = {line.key: CounterRow(500) for line in stock}
    assert [crossing.line for crossing in crossed(stock, before, after, (80, 100))] == [stock[0], stock[0]]


def test_people_see_one_limit_closed_or_open():
    stock = lines()
    for used, shown in ((0, (120, NOON + DAY_MS // 2)), (500, (500, TURN))):
        ((line, row),) = seen(stock, [CounterRow(120), CounterRow(used)])
        assert (row.used, line.ends_ms) == shown
        assert (line.key, line.cap) == (stock[0].key, 500)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, None),
        ({"window": Window.HOUR, "mode": Mode.SOFT, "scope": Pair.KEY_ROUTE}, None),
        ({"window": Window.BILLING_PERIOD, "release": Release.WINDOW}, None),
        ({"window": Window.MONTH}, "release"),
        ({"window": Window.TOTAL}, "release"),
        ({"window": Window.BILLING_PERIOD}, "release"),
        ({"mode": Mode.WARN}, "release"),
        ({"mode": Mode.OVERAGE}, "release"),
        ({"scope": Scope.GLOBAL}, "release"),
        ({"scope": Pair.ROUTE_MODEL}, "release"),
        ({"scope": Scope.MODEL, "window": Window.BILLING_PERIOD, "release": Release.WINDOW}, "window"),
        ({"scope": Pair.PLAN_MODEL, "window": Window.BILLING_PERIOD, "release": Release.WINDOW}, "window"),
    ],
)
def test_a_limit_whose_windows_nobody_has_is_a_mistake(changes, key):
    found = mistake(replace(DAILY, **changes))
    assert (found and found[0]) == key
