"""Events are written with what makes them true, once, and handed out to one dispatcher at a time. On both databases."""

import asyncio
import json

import pytest

from gatekeeper.rules.limits import Mode
from gatekeeper.rules.notices import Kind, Subscription, Wanted
from gatekeeper.rules.windows import DAY_MS

ALL = Wanted(frozenset(Kind), (80, 95, 100))
USAGE = Wanted(frozenset({Kind.USAGE_RECORDED}))
OPS = Subscription("ops", frozenset(Kind), (80, 95, 100))
BOOKS = Subscription("books", frozenset({Kind.USAGE_RECORDED}))
# Names that clients choose.
ODD = 'gpt-"4o"\\ \U0001f600 <b>\u2028\x00 Grüße'


def _events(sql, url):
    rows = sql(url, "SELECT id, kind, customer_id, content FROM event ORDER BY kind, id")
    return [(row[0], row[1].removeprefix("gatekeeper."), row[2], json.loads(row[3])) for row in rows]


async def _use(store, make, call_id, units, line, **changes):
    await store.hold(make.order(call_id, line))
    return await store.settle(make.settlement(call_id, units, **changes))


def test_without_anybody_who_listens_nothing_is_written(with_store, make, sql, store_url):
    async def body(store):
        await _use(store, make, "c1", 99 * make.MICRO, make.line())
        assert not await store.emit(Kind.USAGE_RECORDED, "x", None, {})
        store.tell(USAGE)
        assert not await store.emit("gatekeeper.other", "x", None, {})

    with_store(body)
    assert sql(store_url, "SELECT COUNT(*) FROM event") == [(0,)]


def test_a_settle_tells_its_record_once_however_often_it_is_settled(with_store, make, sql, store_url):
    async def body(store):
        store.tell(USAGE)
        await _use(store, make, "c1", 3 * make.MICRO, make.line(), cost_nano=2_500_000, meters={"images": "2"})
        assert not (await store.settle(make.settlement("c1", 3 * make.MICRO))).first

    with_store(body)
    ((event_id, kind, customer_id, content),) = _events(sql, store_url)
    assert (event_id, kind, customer_id) == ("c1", "usage.recorded", "acme")
    assert {"units": "3", "charge": "0", "cost": "0.0025", "corrects": None, "plan": "pro"}.items() <= content.items()
    assert content["meters"] == {"images": "2"}


def test_a_correction_is_told_under_an_id_of_its_own_with_the_differences(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        await store.hold(make.order("c1", make.line(cap=10 * make.MICRO, fixed=9 * make.MICRO)))
        await store.recover(make.NOW_MS + 30_000, {})
        await store.settle(make.settlement("c1", 9 * make.MICRO))

    with_store(body)
    limit, recovered, corrected = _events(sql, store_url)
    assert (limit[3]["threshold"], limit[3]["used"]) == (80, "9")
    assert (recovered[0], recovered[3]["units"], recovered[3]["note"]) == ("c1", "0", "recovered")
    assert (corrected[0], corrected[3]["units"], corrected[3]["corrects"]) == ("c1#correction", "9", "c1")


@pytest.mark.parametrize("mode", list(Mode))
def test_thresholds_are_told_once_in_every_mode(mode, with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        line = make.line(cap=10 * make.MICRO, mode=mode)
        for number, units in enumerate((7, 1, 1, 1)):
            await _use(store, make, f"c{number}", units * make.MICRO, line)

    with_store(body)
    found = [content for _, kind, _, content in _events(sql, store_url) if kind == "limit.threshold"]
    assert sorted((content["threshold"], content["used"]) for content in found) == [(80, "8"), (95, "10"), (100, "10")]
    assert {content["mode"] for content in found} == {mode.value}
    assert {(content["cap"], content["limit"], content["subject"]) for content in found} == {("10", "quota", "acme")}


def test_calls_that_settle_in_one_batch_cross_as_if_one_after_another(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        line = make.line(cap=20 * make.MICRO)
        calls = [f"c{number}" for number in range(20)]
        await asyncio.gather(*(store.hold(make.order(call, line)) for call in calls))
        await asyncio.gather(*(store.settle(make.settlement(call)) for call in calls))
        assert (await store.counters([make.QUOTA]))[0].used == 20 * make.MICRO

    with_store(body)
    found = [content for _, kind, _, content in _events(sql, store_url) if kind == "limit.threshold"]
    assert sorted((content["threshold"], content["used"]) for content in found) == [(80, "16"), (95, "19"), (100, "20")]


def test_what_everybody_shares_is_told_of_nobody(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        shared = make.QUOTA._replace(scope="global", subject="*")
        await _use(store, make, "c1", 90 * make.MICRO, make.line(key=shared))

    with_store(body)
    told = {(kind, customer_id) for _, kind, customer_id, _ in _events(sql, store_url)}
    assert told == {("usage.recorded", "acme"), ("limit.threshold", None)}


def test_a_call_that_was_never_held_tells_of_its_plans_limits(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        await store.settle(make.settlement("c1", 20 * make.MICRO, plan=make.plan(cap=10 * make.MICRO)))

    with_store(body)
    found = [content for _, kind, _, content in _events(sql, store_url) if kind == "limit.threshold"]
    assert sorted(content["threshold"] for content in found) == [80, 95, 100]
    assert {content["resets_ms"] for content in found} == {make.NEXT_MONTH_MS}


def test_a_larger_cap_warns_anew(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        for number, cap in enumerate((10, 20, 20)):
            line = make.line(cap=cap * make.MICRO, mode=Mode.OVERAGE)
            await _use(store, make, f"c{number}", 9 * make.MICRO, line)

    with_store(body)
    found = [content for _, kind, _, content in _events(sql, store_url) if kind == "limit.threshold"]
    assert sorted((content["cap"], content["threshold"]) for content in found) == [
        ("10", 80),
        ("20", 80),
        ("20", 95),
        ("20", 100),
    ]


def test_a_settle_that_the_database_refuses_tells_nothing(with_store, make, sql, store_url, refuse):
    async def body(store):
        store.tell(ALL)
        refuse(store_url, "usage_record", "NEW.call_id = 'bad'")
        good, bad = (make.order(name, make.line(cap=10 * make.MICRO)) for name in ("good", "bad"))
        await asyncio.gather(store.hold(good), store.hold(bad))
        ends = (store.settle(make.settlement(name, 8 * make.MICRO)) for name in ("bad", "good"))
        answers = await asyncio.gather(*ends, return_exceptions=True)
        assert isinstance(answers[0], Exception)
        assert answers[1].first

    with_store(body)
    told = [(kind, content.get("used", content["call_id"] if "call_id" in content else content["id"]))
            for _, kind, _, content in _events(sql, store_url)]  # fmt: skip
    assert told == [("limit.threshold", "8"), ("usage.recorded", "good")]


def test_odd_names_survive_to_the_last_letter(with_store, make):
    async def body(store):
        store.tell(ALL)
        lone = "\ud83d"
        await _use(store, make, "c1", 90 * make.MICRO, make.line(limit=ODD), model=ODD, note=lone, usage={ODD: ODD})
        await store.fan_out([OPS], make.NOW_MS)
        claims = await store.claim("ops", make.NOW_MS, make.NOW_MS + 1, 9)
        by_kind = {claim.event.kind: claim.event.content for claim in claims}
        usage = by_kind[Kind.USAGE_RECORDED]
        assert (usage["model"], usage["usage"], usage["note"]) == (ODD, {ODD: ODD}, lone)
        assert by_kind[Kind.LIMIT_THRESHOLD]["limit"] == ODD

    with_store(body)


def test_an_event_is_emitted_once_by_its_id(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        emitted = [store.emit(Kind.LIMIT_THRESHOLD, "x1", "acme", {"a": ODD}) for _ in range(4)]
        assert sorted(await asyncio.gather(*emitted)) == [False, False, False, True]
        assert (await store.event("x1")).content == {"a": ODD}
        assert await store.event("x2") is None
        with pytest.raises(AssertionError):
            await store.emit(Kind.LIMIT_THRESHOLD, "a.b", None, {})

    with_store(body)


def test_events_go_to_those_who_asked_for_them(with_store, make):
    async def body(store):
        store.tell(ALL)
        await _use(store, make, "c1", 96 * make.MICRO, make.line())
        late = Subscription("late", frozenset({Kind.LIMIT_THRESHOLD}), (95,))
        assert await store.due(["ops"], make.NOW_MS) == (True, [])
        assert await store.fan_out([OPS, BOOKS, late], make.NOW_MS, limit=2) == 2
        assert await store.fan_out([OPS, BOOKS, late], make.NOW_MS, limit=2) == 1
        assert await store.fan_out([OPS, BOOKS, late], make.NOW_MS) == 0
        assert await store.due(["ops", "late", "nobody"], make.NOW_MS) == (False, ["ops", "late"])
        assert await store.due(["ops"], make.NOW_MS - 1) == (False, [])
        counts = {}
        for delivery in await store.deliveries():
            counts[delivery.target] = counts.get(delivery.target, 0) + 1
        assert counts == {"ops": 3, "books": 1, "late": 1}
        assert [one.target for one in await store.deliveries(event_id="c1", state="waiting")] == ["books", "ops"]
        assert len(await store.deliveries(target="ops", limit=2)) == 2

    with_store(body)


async def _one_claim(store, make, name="c1"):
    await store.settle(make.settlement(name))
    await store.fan_out([BOOKS], make.NOW_MS)
    (claim,) = await store.claim("books", make.NOW_MS, make.NOW_MS + 60_000, 9)
    return claim


def test_a_claim_is_nobody_elses_until_its_lease_is_over(with_store, make):
    async def body(store):
        store.tell(USAGE)
        first = await _one_claim(store, make)
        assert (first.event.id, first.target, first.attempts) == ("c1", "books", 1)
        assert await store.claim("books", make.NOW_MS + 59_999, make.NOW_MS + 99_999, 9) == []
        (second,) = await store.claim("books", make.NOW_MS + 60_000, make.NOW_MS + 120_000, 9)
        assert second.attempts == 2
        # Whoever lost the lease cannot put off or give up what another is sending.
        await store.failed(first, "late", None, make.NOW_MS + 60_001)
        (standing,) = await store.deliveries()
        assert (standing.state, standing.error, standing.next_ms) == ("waiting", None, make.NOW_MS + 120_000)
        # But if the target has it, it has it.
        await store.delivered(first, make.NOW_MS + 60_002)
        await store.failed(second, "too late", make.NOW_MS + 70_000, make.NOW_MS + 60_003)
        (standing,) = await store.deliveries()
        assert (standing.state, standing.sent_ms, standing.attempts) == ("sent", make.NOW_MS + 60_002, 2)

    with_store(body)


def test_what_failed_waits_and_what_was_given_up_is_begun_anew_by_hand(with_store, make):
    async def body(store):
        store.tell(USAGE)
        claim = await _one_claim(store, make)
        assert await store.retry(make.NOW_MS, event_id="c1") == 0  # it is being sent
        await store.failed(claim, "503", make.NOW_MS + 5_000, make.NOW_MS)
        assert await store.claim("books", make.NOW_MS + 4_999, 2**50, 9) == []
        assert await store.retry(make.NOW_MS) == 0  # nothing was given up
        assert await store.retry(make.NOW_MS, event_id="c1", target="ops") == 0
        assert await store.retry(make.NOW_MS, event_id="c1") == 1
        (claim,) = await store.claim("books", make.NOW_MS, make.NOW_MS + 60_000, 9)
        assert claim.attempts == 1
        await store.failed(claim, "410", None, make.NOW_MS + 1)
        (dead,) = await store.deliveries(state="dead")
        assert (dead.error, dead.next_ms, dead.attempts) == ("410", make.NOW_MS + 1, 1)
        assert await store.claim("books", 2**49, 2**50, 9) == []
        assert await store.retry(make.NOW_MS + 2) == 1
        assert await store.due(["books"], make.NOW_MS + 2) == (False, ["books"])

    with_store(body)


def test_of_all_processes_one_is_the_first_for_a_while(with_store, make):
    async def body(store):
        asked = [await store.first("spikes", make.NOW_MS + at_ms, make.NOW_MS + at_ms + 100) for at_ms in (0, 99, 100)]
        return asked, await store.first("other", make.NOW_MS, make.NOW_MS + 1)

    assert with_store(body) == ([True, False, True], True)


def test_what_nobody_asks_for_any_more_is_forgotten_too(with_store, make):
    async def body(store):
        store.tell(USAGE)
        for name in ("c1", "c2"):
            await store.settle(make.settlement(name))
        old_ms = make.NOW_MS + 1_000 + 7 * DAY_MS
        assert [await store.prune(old_ms), await store.prune(old_ms - 1, nobody=True)] == [0, 0]
        assert await store.event("c1") is not None
        assert await store.prune(old_ms, nobody=True) == 2
        assert await store.event("c1") is None

    with_store(body)


def test_old_things_are_forgotten_in_bounded_steps(with_store, make, sql, store_url):
    async def body(store):
        store.tell(ALL)
        for number in range(5):
            await _use(store, make, f"c{number}", 17 * make.MICRO, make.line())
        await store.fan_out([BOOKS], make.NOW_MS)
        claims = await store.claim("books", make.NOW_MS, make.NOW_MS + 60_000, 4)
        for claim in claims[:3]:
            await store.delivered(claim, make.NOW_MS)
        await store.failed(claims[3], "410", None, make.NOW_MS)
        assert await store.prune(make.NOW_MS + 7 * DAY_MS - 1) == 0
        # Three were sent, one was given up and is kept; one was never taken: that is given up now.
        steps = [await store.prune(make.NOW_MS + 7 * DAY_MS, limit=2) for _ in range(3)]
        assert steps == [2, 1, 0]
        left = {one.event.id: (one.state, one.error[:6]) for one in await store.deliveries()}
        assert left == {claims[3].event.id: ("dead", "410"), "c4": ("dead", "nobody")}
        await store.prune(make.NOW_MS + 37 * DAY_MS)
        assert await store.deliveries() == []
        # What must not be told again is remembered for longer.
        assert {kind for _, kind, _, _ in await asyncio.to_thread(_events, sql, store_url)} == {"limit.threshold"}
        await store.prune(make.NOW_MS + 100 * DAY_MS)
        assert await asyncio.to_thread(_events, sql, store_url) == []

    with_store(body)
