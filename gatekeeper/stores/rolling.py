"""Sums over closed hours and whole days, so that reports need not read every record. See ``ports.Rollups``.

The rule: a report is exact whatever is summed up. It takes an hour from its sums only where ``usage_rolled`` says so
and no row of ``late_record`` doubts it, all in one snapshot. So it is enough that every record of an hour that is
summed up is either in the sums, or committed together with such a row. That holds in every order of things:

- A settle whose record's hour is over by its own clock writes the row, in its own transaction. It only ever adds rows.
- An hour is taken minutes (``roller.GRACE_MS``) after its end. On SQLite settles and the taking are transactions one
  after the other on one clock, so whoever commits later sees that the hour is over. On Postgres a settle that looked at
  the clock before the end may commit later: so nothing is taken until all transactions are over that were under way
  when the time was up (``roll_fence``). What is left to trust is that the clocks of two hosts differ by less than that
  time.
- Rows and records are read in one snapshot, and exactly those rows are deleted, with the write of the sums. What is
  settled meanwhile leaves a row that stays: the hour is read from its records, and made again.
- Between reading and writing somebody else (an election that was lost) may have written newer sums: every write of a
  day and its hours first counts ``version`` up from what was read, which holds the row until the commit, or gives up.
- A day is made of its hours in the same way. The write of an hour takes back that its day is whole, on that same row;
  what the day makes needless of its hours is deleted with a write of that row, too.
- An hour or day of very many rows is written in several transactions; from the first to the last it is not summed up.
- A commit that is lost with the power takes back all of it, never half: the rows that were deleted come back with it.

Days are looked at once more when they are three days old (``LOOK_AGAIN_MS``): hours that are not their records any more
(a process of an older version beside this one, a clock that was wrong) are made again. ``doctor`` compares all of them.
"""

import logging
from collections.abc import Mapping, Sequence

from gatekeeper.errors import Fault
from gatekeeper.rules.rollups import ALL_HOURS
from gatekeeper.rules.windows import DAY_MS, HOUR_MS
from gatekeeper.stores.database import Ask, AskMany, Database, Row, Rows, Steps, Work, alone

_LOG = logging.getLogger("gatekeeper.reports")
LOOK_AGAIN_MS = 3 * DAY_MS
_ROLLER = "roller"
_FOR_EVER_MS = 2**62
# Marks of one hour that are answered at once; those that are left keep the hour late until the next time.
MARKS_MAX = 5_000


class SqlRollups:
    """See ``ports.Rollups``."""

    _database: Database
    # Of one transaction: a settle may wait for one, some 20 ms on SQLite.
    sums_at_once = 2_000

    async def elect_roller(self, owner: str, now_ms: int, lease_ms: int) -> bool:
        """Whether ``owner`` is the one process that makes the sums."""
        work = alone("elect", name=_ROLLER, owner=owner, lease_ms=lease_ms, now_ms=now_ms)
        return bool(await self._database.write(work, durable=False))

    async def roll_fence(self) -> tuple[int, int]:
        """(the oldest transaction that may be under way, the next one)."""
        ((oldest, coming),) = await self._database.read(alone("fence"))
        return oldest, coming

    async def roll(self, safe_ms: int, *, steps: int = 8) -> int:
        """Sum up some hours and days that ended before ``safe_ms``, late ones first, then the latest; returns how
        many."""
        days = {row[0]: row for row in await self._rolled(0, _FOR_EVER_MS)}
        bounds = {"start_ms": 0, "end_ms": safe_ms - HOUR_MS + 1, "limit": steps}
        late = [row[0] for row in await self._database.report(alone("late_hours", **bounds))]
        done = 0
        for hour_ms in late:
            done += await self._made(hour_ms, HOUR_MS)
        before_ms = safe_ms
        while done < steps:
            while _is_settled(days.get(before_ms - DAY_MS), safe_ms) and before_ms % DAY_MS == 0:
                before_ms -= DAY_MS
            ((newest_ms,),) = await self._database.report(alone("newest_before", before_ms=before_ms))
            if newest_ms is None:
                break
            before_ms = newest_ms - newest_ms % DAY_MS
            done += await self._roll_day(before_ms, days.get(before_ms), safe_ms, steps - done)
        return done

    async def _roll_day(self, day_ms: int, row: Row | None, safe_ms: int, steps: int) -> int:
        """What of a day is still to be done."""
        _, hours, fine, whole, _ = row or (day_ms, 0, 0, 0, 0)
        # Where the day is not whole, it will be made of its hours in full.
        there = hours if whole else hours & fine
        done = 0
        for number in reversed(range(24)):
            hour_ms = day_ms + number * HOUR_MS
            if done < steps and not there >> number & 1 and hour_ms + HOUR_MS <= safe_ms:
                done += await self._made(hour_ms, HOUR_MS)
        if done >= steps or day_ms + DAY_MS > safe_ms or _is_settled(row, safe_ms):
            return done
        if whole and fine:
            return done + await self._trim(day_ms)
        if whole:
            return done + await self._look_again(day_ms)
        return done + await self._made(day_ms, DAY_MS)

    async def roll_hour(self, hour_ms: int) -> bool:
        """Make the sums of an hour; False when somebody else made sums of its day meanwhile."""
        return await self._roll(hour_ms, HOUR_MS)

    async def roll_day(self, day_ms: int) -> bool:
        """Make the sums of a day; False when not all of its hours have theirs in full, or somebody else was at it."""
        return await self._roll(day_ms, DAY_MS)

    async def _trim(self, day_ms: int) -> int:
        """Of a day that is whole the hours need not be told apart in full."""
        ((_, _, fine, _, version),) = [row for row in await self._rolled(day_ms, day_ms + 1) if row[0] == day_ms]
        for number in range(24):
            if not fine >> number & 1:
                continue
            args = {"day_ms": day_ms, "version": version, "kept": ALL_HOURS & ~(1 << number)}
            version = await self._database.write(_trimmed(args, day_ms + number * HOUR_MS), durable=False)
            if not version:
                break
        return 1

    async def _look_again(self, day_ms: int) -> int:
        """Make the hours again that are not their records; where there are none, that is that."""
        version, unlike = await self._unlike(day_ms)
        for hour_ms in unlike:
            _LOG.warning("the sums of the hour from %d on were not its records; they are made again", hour_ms)
            await self._made(hour_ms, HOUR_MS)
        if not unlike:
            await self._database.write(alone("confirm_day", day_ms=day_ms, version=version), durable=False)
        return max(1, len(unlike))

    async def _made(self, start_ms: int, length_ms: int) -> int:
        """One step. One that cannot be (sums that do not fit 64 bits) must not keep the others from being made."""
        try:
            await self._roll(start_ms, length_ms)
        except Fault as failure:
            _LOG.error("no sums from %d on: %s", start_ms, failure)
            return 0
        return 1

    async def _rolled(self, start_ms: int, end_ms: int) -> Rows:
        return await self._database.report(alone("rolled_days", start_ms=start_ms, end_ms=end_ms))

    async def _unlike(self, day_ms: int) -> tuple[int, list[int]]:
        """The version of a day, and its hours whose sums are not their records."""
        bounds = {"start_ms": day_ms, "end_ms": day_ms + DAY_MS}

        def work() -> Steps[tuple[int, list[int]]]:
            row = yield from _state(day_ms)
            counted = yield Ask("day_counted", bounds)
            summed = yield Ask("day_summed", bounds)
            unlike = {tuple(each) for each in counted} ^ {tuple(each) for each in summed}
            return row[4], sorted({each[0] for each in unlike})

        return await self._database.report(work)

    async def _roll(self, start_ms: int, length_ms: int) -> bool:
        day_ms = start_ms - start_ms % DAY_MS
        span = "hour" if length_ms == HOUR_MS else "day"
        read = await self._database.report(lambda: _read(day_ms, start_ms, length_ms, span))
        if read is None:
            return False
        version, marks, sums, waits = read
        bit = 1 << (start_ms - day_ms) // HOUR_MS if span == "hour" else 0
        rows = [(row[0], span, start_ms, part, *row[1:]) for part, row in enumerate(sums)]
        pages = [rows[at : at + self.sums_at_once] for at in range(0, max(1, len(rows)), self.sums_at_once)]
        for number, page in enumerate(pages):
            writing = _Writing(day_ms, span, start_ms, version, bit, number == 0, number == len(pages) - 1)
            again = [(span, start_ms, *row) for row in waits] if writing.last else []
            version = await self._database.write(writing.work(page, again, marks), durable=False)
            if not version:
                return False
        return True


class _Writing:
    """One transaction of the write of an hour or day."""

    def __init__(self, day_ms: int, span: str, start_ms: int, version: int, bit: int, first: bool, last: bool) -> None:
        self._day_ms = day_ms
        self._span = span
        self._start_ms = start_ms
        self._version = version
        self._bit = bit
        self._first = first
        self.last = last

    def work(self, sums: Sequence[Row], waits: Sequence[Row], marks: Sequence[Row]) -> Work[int]:
        """Answers with the version that it leaves, 0 when somebody else was quicker."""

        def steps() -> Steps[int]:
            args = {"day_ms": self._day_ms, "version": self._version}
            if self._first:
                found = yield Ask("begin_roll", {**args, "kept": ALL_HOURS & ~self._bit})
            else:
                found = yield Ask("go_on_rolling", args)
            if not found:
                return 0
            if self._first:
                where = {"span": self._span, "start_ms": self._start_ms}
                yield Ask("drop_sums", where)
                yield Ask("drop_waits", where)
            if sums:
                yield AskMany("add_sum", sums)
            if not self.last:
                return int(found[0][0])
            if waits:
                yield AskMany("add_wait", waits)
            if marks:
                yield AskMany("drop_late", marks)
            args["version"] = found[0][0]
            found = yield Ask("end_roll", {**args, "made": self._bit, "whole": int(self._span == "day")})
            return int(found[0][0])

        return steps


def _read(
    day_ms: int, start_ms: int, length_ms: int, span: str
) -> Steps[tuple[int, Sequence[Row], Sequence[Row], Sequence[Row]] | None]:
    """The version of the day, the marks of the hour, and the sums that are to be written, of one snapshot; None for a
    day whose hours are not all summed up."""
    bounds = {"start_ms": start_ms, "end_ms": start_ms + length_ms}
    _, hours, fine, _, version = yield from _state(day_ms)
    marks: Rows = ()
    if span == "hour":
        marks = yield Ask("late_of_hour", {"hour_ms": start_ms, "limit": MARKS_MAX})
    else:
        late = yield Ask("late_hours", {**bounds, "limit": 1})
        if late or hours & fine != ALL_HOURS:
            return None
    sums = yield Ask(f"{span}_sums", bounds)
    waits = yield Ask(f"{span}_waits", bounds)
    return version, marks, sums, waits


def _state(day_ms: int) -> Steps[Row]:
    """The row of a day as it is; version 0: there is none."""
    rows = yield Ask("rolled_days", {"start_ms": day_ms, "end_ms": day_ms + 1})
    return next((row for row in rows if row[0] == day_ms), (day_ms, 0, 0, 0, 0))


def _trimmed(args: Mapping[str, int], hour_ms: int) -> Work[int]:
    """Answers with the version that it leaves, 0 when somebody else was quicker."""

    def steps() -> Steps[int]:
        found = yield Ask("begin_trim", args)
        if not found:
            return 0
        yield Ask("trim_hour", {"start_ms": hour_ms})
        return int(found[0][0])

    return steps


def _is_settled(row: Row | None, safe_ms: int) -> bool:
    """Whether nothing is left to do for a day."""
    if row is None:
        return False
    day_ms, _, fine, whole, _ = row
    return not fine and (whole == 2 or (whole == 1 and day_ms + LOOK_AGAIN_MS > safe_ms))
