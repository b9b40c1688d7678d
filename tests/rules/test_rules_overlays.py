"""What an operator sets beats what is declared for the same row, for as long as it is set, and nothing else."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.money import Price
from gatekeeper.rules.declared import EACH, DeclaredLimit, DeclaredRate, Many, Origin, applying, applying_rates
from gatekeeper.rules.limits import DOLLARS, REQUESTS, UNITS, Mode, RateLimit, Scope, StockLimit, Window
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.overlays import Family, Overlay, holding_for, id_of, limit_id, overlaid, standing
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS

NOON = 1_750_000_000_000
ALICE = Subject("acme", "pro", "chat", anchor_ms=0, key_id="key_1", user_id="alice", agent_id="bot", model="gpt-4o")
QUOTA = StockLimit("quota", Scope.CUSTOMER, UNITS, Window.MONTH, 1_000)
PRICED = replace(QUOTA, mode=Mode.OVERAGE)


def plan(quota: StockLimit | None = None, *limits: StockLimit) -> Plan:
    overage = Price(Decimal("0.001")) if quota is not None and quota.mode is Mode.OVERAGE else None
    return Plan("pro", "Pro", Decimal(99), quota, overage=overage, limits=limits)


def declared(scope: Scope, subject: str = EACH, cap: int | None = 5, **more) -> DeclaredLimit:
    dimension, window = more.pop("dimension", DOLLARS), more.pop("window", Window.DAY)
    name = more.pop("name", f"{scope}-{subject}")
    return DeclaredLimit(StockLimit(name, scope, dimension, window, cap, **more), subject)


def overlay(scope: Scope, subject: str = EACH, cap: int | None = 50, **more) -> Overlay:
    family = more.pop("family", Family.STOCK)
    dimension, span = more.pop("dimension", DOLLARS), str(more.pop("span", Window.DAY))
    name = limit_id(family, scope, subject, dimension, span)
    mode = more.pop("mode", Mode.BLOCK)
    return Overlay(name, family, "admin", scope, subject, dimension, span, cap, mode, "UTC", 1, 1, **more)


def caps(limits, overlays, subject: Subject = ALICE, on: Plan | None = None) -> list[tuple[str, int | None, Mode]]:
    laid, _ = overlaid(limits, (), overlays)
    found = applying(laid, on or plan(), subject.of)
    return [(each.limit.name, each.limit.cap, each.limit.mode) for each in found]


def test_an_overlay_takes_the_place_of_what_is_declared_on_its_row():
    limits = [declared(Scope.GLOBAL), declared(Scope.USER), declared(Scope.USER, window=Window.MONTH, name="month")]
    assert caps(limits, [overlay(Scope.USER)]) == [
        ("global-each", 5, Mode.BLOCK),
        ("admin", 50, Mode.BLOCK),
        ("month", 5, Mode.BLOCK),
    ]
    assert overlaid(limits, (), ())[0] == tuple(limits)


def test_an_overlay_on_what_nothing_declares_is_a_new_limit():
    assert caps([], [overlay(Scope.MODEL, "gpt-4o", 7)]) == [("admin", 7, Mode.BLOCK)]
    assert caps([], [overlay(Scope.MODEL, "gpt-4", 7)]) == []


def test_a_declared_warning_stays_beside_an_overlay_that_blocks_and_is_beaten_by_one_that_warns():
    both = [declared(Scope.USER, mode=Mode.WARN, name="warn"), declared(Scope.USER)]
    assert caps(both, [overlay(Scope.USER)]) == [("warn", 5, Mode.WARN), ("admin", 50, Mode.BLOCK)]
    assert caps(both, [overlay(Scope.USER, mode=Mode.WARN)]) == [("admin", 50, Mode.WARN)]


def test_what_an_overlay_does_not_say_stays_as_it_is_declared():
    soft = declared(Scope.USER, mode=Mode.SOFT, soft_at=60)
    (laid,) = overlaid([soft], (), [overlay(Scope.USER, mode=Mode.SOFT)])[0]
    assert (laid.limit.cap, laid.limit.soft_at, laid.origin) == (50, 60, Origin.ADMIN)


def test_a_cap_for_one_customer_stands_in_the_place_of_a_quota_that_blocks():
    cap = overlay(Scope.CUSTOMER, "acme", 7, dimension=UNITS, span=Window.MONTH)
    assert caps([], [cap], on=plan(QUOTA)) == [("quota", 7, Mode.BLOCK)]
    other = replace(ALICE, customer_id="other")
    assert caps([], [cap], other, plan(QUOTA)) == [("quota", 1_000, Mode.BLOCK)]
    # What every customer may is no cap of one: what was bought stays beside it.
    every = overlay(Scope.CUSTOMER, EACH, 7, dimension=UNITS, span=Window.MONTH)
    assert caps([], [every], on=plan(QUOTA)) == [("quota", 1_000, Mode.BLOCK), ("admin", 7, Mode.BLOCK)]


def test_a_declared_limit_for_one_customer_is_never_the_quota():
    file = declared(Scope.CUSTOMER, "acme", 7, dimension=UNITS, window=Window.MONTH)
    assert caps([file], [], on=plan(QUOTA)) == [("quota", 1_000, Mode.BLOCK), ("customer-acme", 7, Mode.BLOCK)]


@pytest.mark.parametrize("cap", [0, 500, 5_000, None])
def test_a_cap_never_touches_the_quota_from_which_the_price_is_worked_out(cap):
    mine = overlay(Scope.CUSTOMER, "acme", cap, dimension=UNITS, span=Window.MONTH)
    assert caps([], [mine], on=plan(PRICED)) == [("quota", 1_000, Mode.OVERAGE), ("admin", cap, Mode.BLOCK)]


def test_an_overlay_for_one_subject_beats_what_the_plan_gives_to_each():
    limits = (StockLimit("plan", Scope.USER, DOLLARS, Window.DAY, 3),)
    sold = plan(None, *limits)
    assert caps([], [overlay(Scope.USER, "acme/alice")], on=sold) == [("admin", 50, Mode.BLOCK)]
    assert caps([], [overlay(Scope.USER)], on=sold) == [("plan", 3, Mode.BLOCK), ("admin", 50, Mode.BLOCK)]


def test_a_rate_without_a_cap_takes_the_declared_one_away():
    rates = [DeclaredRate(RateLimit("calls", Scope.KEY, REQUESTS, 60))]
    laid = overlaid((), rates, [overlay(Scope.KEY, EACH, None, family=Family.RATE, dimension=REQUESTS, span=60_000)])[1]
    assert applying_rates(laid, plan(), ALICE.of) == ()
    laid = overlaid((), rates, [overlay(Scope.KEY, EACH, 7, family=Family.RATE, dimension=REQUESTS, span=60_000)])[1]
    assert [each.limit.cap for each in applying_rates(laid, plan(), ALICE.of)] == [7]


def test_an_id_is_the_same_under_and_after_an_overlay_and_tells_plans_apart():
    limit, mine = declared(Scope.USER), overlay(Scope.USER)
    assert id_of(limit) == mine.id
    found = standing([limit], (), {"pro": plan(QUOTA), "free": plan(QUOTA)}, [mine])
    assert len({each.id for each in found}) == 3
    (laid,) = [each for each in found if each.overlay]
    assert (laid.beaten, laid.tag) == (limit, "1-1")


def lines(resets, quota: StockLimit, now_ms: int = NOON):
    return stock_lines(plan(quota), ALICE, Bounds(), now_ms, (), resets)


def test_from_a_reset_on_a_limit_counts_on_a_row_of_its_own_until_the_window_turns():
    day = replace(QUOTA, window=Window.DAY)
    row = (Scope.CUSTOMER, "acme", UNITS, Window.DAY)
    start_ms = lines({}, day)[0].key.start_ms
    reset_ms = start_ms + 1_000
    assert lines({row: reset_ms}, day)[0].key.start_ms == reset_ms
    assert lines({row: reset_ms}, day)[0].ends_ms == start_ms + DAY_MS
    assert lines({row: reset_ms}, day, NOON + DAY_MS)[0].key.start_ms == start_ms + DAY_MS
    # Neither the reset of another window nor one that by this clock is still to come.
    assert lines({row: start_ms - 1}, day)[0].key.start_ms == start_ms
    assert lines({row: NOON + 1}, day)[0].key.start_ms == start_ms
    assert lines({(*row[:1], "other", *row[2:]): reset_ms}, day)[0].key.start_ms == start_ms


def test_a_priced_quota_never_begins_anew():
    row = (Scope.CUSTOMER, "acme", UNITS, Window.MONTH)
    assert lines({row: NOON - 1}, PRICED)[0].key.start_ms == lines({}, PRICED)[0].key.start_ms


SUBJECTS = {
    Scope.GLOBAL: [EACH],
    Scope.CUSTOMER: [EACH, "acme", "other"],
    Scope.USER: [EACH, "alice", "acme/alice", "bob"],
    Scope.AGENT: [EACH, "bot", "acme/bot", "alice"],
    Scope.MODEL: [EACH, "gpt-4o", "o3"],
}
ROWS = st.sampled_from([(scope, subject) for scope, found in SUBJECTS.items() for subject in found])
WINDOWS = st.sampled_from([Window.DAY, Window.MONTH])
CALLERS = st.sampled_from([ALICE, replace(ALICE, customer_id="other"), replace(ALICE, user_id="bob", agent_id=None)])


@st.composite
def worlds(draw):
    rows = draw(st.lists(st.tuples(ROWS, WINDOWS), max_size=12, unique=True))
    limits = [declared(*row, draw(st.integers(0, 9)), window=window) for row, window in rows]
    mine = draw(st.lists(st.tuples(ROWS, WINDOWS), max_size=8, unique=True))
    return limits, [overlay(*row, draw(st.integers(10, 19)), span=window) for row, window in mine]


@settings(max_examples=200)
@given(worlds(), CALLERS, st.sampled_from([QUOTA, PRICED, None]))
def test_laying_over_is_declaring_it_so(world, caller, quota):
    """The limits under overlays are those of a file in which the overlays were written instead."""
    limits, overlays = world
    ids = {each.id for each in overlays}
    rewritten = [each for each in limits if id_of(each) not in ids]
    rewritten += [declared(each.scope, each.subject, each.cap, window=Window(each.span)) for each in overlays]
    laid, _ = overlaid(limits, (), overlays)

    def met(found):
        applied = applying(found, plan(quota), caller.of)
        return sorted((each.row, each.subject, each.limit.cap) for each in applied)

    assert met(laid) == met(rewritten)
    # Whom no overlay means, none touches.
    if not any(each.subject != EACH or caller.of(each.scope) is not None for each in overlays):
        assert met(laid) == met(limits)
    # Without them the declared ones stand as they stood.
    assert overlaid(limits, (), ())[0] == tuple(limits)


@settings(max_examples=200)
@given(worlds(), CALLERS)
def test_looking_many_limits_up_finds_what_asking_each_finds(world, caller):
    laid, _ = overlaid(world[0], (), world[1])
    assert applying(Many(laid), plan(QUOTA), caller.of) == applying(tuple(laid), plan(QUOTA), caller.of)


@settings(max_examples=200)
@given(worlds(), st.sampled_from(["acme", "other"]), st.sampled_from([QUOTA, PRICED, None]))
def test_what_is_shown_for_a_subject_is_what_its_calls_meet(world, customer_id, quota):
    limits, overlays = world
    cap = overlay(Scope.CUSTOMER, "acme", 3, dimension=UNITS, span=Window.MONTH)
    overlays = [*overlays, cap]
    on, caller = plan(quota), replace(ALICE, customer_id=customer_id)
    found = [
        each
        for each in standing(limits, (), {"pro": on, "free": plan(QUOTA)}, overlays)
        if each.scope == Scope.CUSTOMER
    ]
    shown = sorted((each.declared.row, each.cap) for each in holding_for(found, customer_id, "pro"))
    met = applying(overlaid(limits, (), overlays)[0], on, caller.of)
    assert shown == sorted((each.row, each.limit.cap) for each in met if each.limit.scope is Scope.CUSTOMER)
