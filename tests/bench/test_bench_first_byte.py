"""The bench of the first byte, small: real gateways, and what is counted. How quick they are is judged by hand."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.first_byte import DIRECT, FEW_EVENTS, NULL, TARGET_MS, Found, Plan, Seen, measure, said_of, table
from gatekeeper.clock import SystemClock
from gatekeeper.stores import open_store

SEEN = Seen(p50_ms=1.0, p99_ms=2.0, there_ms=0.6, back_ms=0.4, cpu_us=900, calls=7, calls_per_s=3, wrong=0, why="")
ASKED = {"held": 14, "settled": 14}


def found(*sqlite_p50_ms: float) -> Found:
    null = [replace(SEEN, p50_ms=0.5), replace(SEEN, p50_ms=0.9)]
    sqlite = [replace(SEEN, p50_ms=p50_ms) for p50_ms in sqlite_p50_ms]
    return Found(Plan(rounds=2), {NULL: null, "sqlite": sqlite}, ASKED)


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")
def test_all_streams_are_whole_and_each_is_held_and_settled_with_or_without_a_ledger(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    said: list[str] = []
    plan = Plan(seconds=0.6, rounds=2, callers=4, events=FEW_EVENTS)
    seen = measure([url], plan, said.append)
    # Every byte of every stream was compared with the CRC that its provider sent.
    assert seen.wrong == []
    assert list(seen.rounds) == [DIRECT, NULL, "sqlite"]
    assert len(said) == 3 * plan.rounds
    assert all(one.calls >= plan.callers and one.calls_per_s > 0 for rounds in seen.rounds.values() for one in rounds)
    assert seen.asked["held"] == seen.asked["settled"] == sum(one.calls for one in seen.rounds[NULL])
    assert all(one.there_ms > 0 and one.back_ms > 0 for one in seen.rounds["sqlite"])

    async def stored() -> list[tuple[str, int]]:
        store = await open_store(url, clock=SystemClock())
        try:
            return [(one.outcome, one.units_micro) for one in await store.records(limit=10_000)]
        finally:
            await store.close()

    # What the provider says that it took.
    assert asyncio.run(stored()) == [("complete", 142_000_000)] * sum(one.calls for one in seen.rounds["sqlite"])


def test_what_is_added_is_the_median_of_the_differences_within_a_round():
    seen = found(1.0, 1.0)
    assert seen.wrong == []
    assert round(seen.added_ms("sqlite"), 6) == 0.3
    assert round(found(0.6, 1.1).added_ms("sqlite"), 6) == 0.15
    head, names, *rows = table(seen)
    assert "calls of 1000 ms" in head
    assert names.split()[-3:] == ["added", "to", "p50"]
    assert [row.split()[0] for row in rows] == [NULL, "sqlite"]
    assert f"(target {TARGET_MS:g})" in rows[1]
    assert "target" not in rows[0]


def test_more_than_the_target_is_said():
    assert said_of(TARGET_MS) == "+0.30 ms (target 0.3)"
    assert said_of(TARGET_MS + 0.01) == "+0.31 ms (target 0.3) OVER"
    assert said_of(-0.02) == "-0.02 ms (target 0.3)"


def test_a_ledger_that_was_not_asked_and_an_answer_that_was_wrong_are_told():
    assert replace(found(1.0, 1.0), asked={"held": 14, "settled": 13}).wrong
    assert replace(found(1.0, 1.0), asked={}).wrong
    broken = found(1.0, 1.0)
    broken.rounds["sqlite"][1] = replace(SEEN, wrong=1, why="status 500")
    (told,) = broken.wrong
    assert told.startswith("sqlite: 1 answers")
    broken.rounds["sqlite"][1] = replace(SEEN, calls=0)
    assert broken.wrong
