"""The tries that did not serve a call: written with its record, once, on both databases and through the journal."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from gatekeeper.ports import Attempt
from gatekeeper.rules.limits import CounterKey, Mode, StockLine
from gatekeeper.stores.forgetting import ATTEMPTS_KEPT_MS
from gatekeeper.stores.journal import FileJournal

FIRST = Attempt(1, "openai", "gpt-4o", 1_000, 1_250, fault="connect")
SECOND = Attempt(2, "azure", "gpt-4o-\x002", 1_250, 1_300, status=503)
SKIPPED = Attempt(3, "local", None, 1_300, 1_300, fault="breaker_open")


def line(model: str) -> StockLine:
    key = CounterKey("model", model, "requests", "total", 0)
    return StockLine(key, f"of-{model}", 10_000_000, Mode.BLOCK, 1_000_000, 0, None)


def test_attempts_are_written_with_the_record_and_only_once(with_store, make):
    async def body(store):
        for call_id, rows in (("a", (FIRST, SECOND, SKIPPED)), ("b", ()), ("c", (FIRST,))):
            await store.hold(make.order(call_id))
            settlement = replace(make.settlement(call_id), attempts=rows)
            assert (await store.settle(settlement)).first
            assert not (await store.settle(settlement)).first
        return [await store.attempts(call_id) for call_id in ("a", "b", "c", "nobody")]

    a, *rest = with_store(body)
    assert a == [FIRST, replace(SECOND, model="gpt-4o-\ufffd2"), SKIPPED]
    assert rest == [[], [FIRST], []]


def test_the_model_that_was_asked_for_is_kept(with_store, make):
    async def body(store):
        await store.hold(make.order("a"))
        settled = await store.settle(make.settlement("a", model="gpt-4o-mini", model_requested="gpt-4o"))
        entries = await store.entries("a")
        return settled.record, await store.record("a"), await store.records(), entries[0].record

    for record in with_store(body)[:2]:
        assert (record.model, record.model_requested) == ("gpt-4o-mini", "gpt-4o")
    _, _, (listed,), entry = with_store(lambda store: _again(store))
    assert (listed.model_requested, entry.model_requested) == ("gpt-4o", "gpt-4o")


async def _again(store):
    entries = await store.entries("a")
    return None, None, await store.records(), entries[0].record


def test_old_tries_are_forgotten_and_their_calls_are_not(with_store, make):
    async def body(store):
        for call_id, tried in (("old", FIRST), ("new", replace(FIRST, started_ms=make.NOW_MS))):
            await store.settle(replace(make.settlement(call_id), attempts=(tried,)))
        await store.recover(make.NOW_MS + ATTEMPTS_KEPT_MS, {})
        return [await store.attempts(call_id) for call_id in ("old", "new")], await store.record("old")

    (old, new), record = with_store(body)
    assert (old, len(new)) == ([], 1)
    assert record is not None


def test_of_several_models_that_were_held_for_only_the_one_that_served_is_counted(with_store, make):
    lines = (line("gpt-4o"), line("other"))
    keys = [each.key for each in lines]

    async def body(store):
        await store.hold(make.order("a", stock=lines))
        held = [state.held for state in await store.counters(keys)]
        await store.settle(make.settlement("a", model="other", model_requested="gpt-4o"))
        after = [(state.used, state.held) for state in await store.counters(keys)]
        counted = [(each.limit, each.taken) for each in (await store.entries("a"))[0].counted]
        return held, after, counted, await store.unbalanced(), (await store.figures(0, 0)).lines

    held, after, counted, unbalanced, strange = with_store(body)
    assert held == [1_000_000, 1_000_000]
    assert after == [(0, 0), (1_000_000, 0)]
    assert counted == [("of-other", 1_000_000)]
    assert unbalanced == ([], [])
    assert strange[0] == 0


def test_a_late_settle_of_another_model_leaves_sums_that_are_right(with_store, make):
    lines = (line("gpt-4o"), line("other"))

    async def body(store):
        order = make.order("a", stock=lines)
        await store.hold(order)
        assert await store.recover(order.expires_ms, {}) == 1
        await store.settle(replace(make.settlement("a", model="other"), attempts=(FIRST,)))
        states = [(state.used, state.held) for state in await store.counters([each.key for each in lines])]
        return states, await store.unbalanced(), await store.attempts("a")

    assert with_store(body) == ([(0, 0), (1_000_000, 0)], ([], []), [FIRST])


def test_the_journal_keeps_them(tmp_path: Path, make):
    async def body() -> None:
        dead, heir = FileJournal(tmp_path, "host:1:a"), FileJournal(tmp_path, "host:2:b")
        await dead.append(replace(make.settlement("a", model_requested="x"), attempts=(FIRST, SKIPPED)))
        os.close(dead._file)
        (found,) = await heir.orphans()
        assert found.attempts == (FIRST, SKIPPED)
        assert found.record.model_requested == "x"
        assert found.settlement(None).attempts == (FIRST, SKIPPED)
        await heir.close()

    asyncio.run(body())
