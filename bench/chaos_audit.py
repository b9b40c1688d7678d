"""What must be true after chaos, asked of the database in SQL of its own, and by the doctor.

The rule: caps are watched by a trigger that sees every write, not by looking now and then; sums are taken over the
records' own columns, not over what they say of counters.
"""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bench.chaos_rig import Seen
from bench.systems import ROOT

MICRO = 1_000_000
_OPEN = "SELECT COUNT(*) FROM hold WHERE state = 'open'"
_RECORDS = (
    "SELECT COALESCE(corrects, call_id), CAST(SUM(units_micro) AS BIGINT), MIN(outcome) FROM usage_record GROUP BY 1"
)
# What one sum over the records says of one scope and dimension: which column is the subject, and what is summed up.
_SUMS = {
    ("customer", "units"): ("customer_id", "SUM(units_micro)"),
    ("customer", "dollars"): ("customer_id", "SUM(COALESCE(cost_nano, 0))"),
    ("key", "units"): ("key_id", "SUM(units_micro)"),
    ("key", "dollars"): ("key_id", "SUM(COALESCE(cost_nano, 0))"),
    ("global", "units"): ("'*'", "SUM(units_micro)"),
    ("global", "dollars"): ("'*'", "SUM(COALESCE(cost_nano, 0))"),
}


@dataclass
class Report:
    """What one scenario counted, and what was wrong; nothing wrong is what it is for."""

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def must(self, true: object, said: str) -> None:
        """Remember what is not as it must be."""
        if not true:
            self.wrong.append(said)


async def rows(url: str, *statements: str) -> list[Sequence[Any]]:
    """Run statements behind the gateway's back; the rows of the last."""
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_sqlite_rows, url.removeprefix("sqlite:///"), statements)
    connection = await asyncpg.connect(url)
    try:
        found: list[Sequence[Any]] = []
        for statement in statements:
            found = list(await connection.fetch(statement))
        return found
    finally:
        await connection.close()


def _sqlite_rows(path: str, statements: Iterable[str]) -> list[Sequence[Any]]:
    # No checkpoint here: a reader must not do the work of the writer.
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        found: list[Sequence[Any]] = []
        for statement in statements:
            found = connection.execute(statement).fetchall()
        return found


async def number(url: str, question: str) -> int:
    """One number."""
    return int((await rows(url, question))[0][0])


async def watch_caps(url: str, caps: Iterable[tuple[str, str, str, int]], *, growth_only: bool = False) -> None:
    """From now on the database itself writes down every row of a counter that passes its cap: (scope, subject LIKE,
    dimension, cap in the stored unit). ``growth_only``: not when a late settle of what was recovered makes it so."""
    condition = " OR ".join(
        f"(NEW.scope = '{scope}' AND NEW.subject LIKE '{subject}' AND NEW.dimension = '{dimension}'"
        f" AND NEW.used + NEW.held > {cap})"
        for scope, subject, dimension, cap in caps
    )
    note = "INSERT INTO breach VALUES (NEW.scope, NEW.subject, NEW.dimension, NEW.used, NEW.held)"
    made = "CREATE TABLE breach (scope TEXT, subject TEXT, dimension TEXT, used BIGINT, held BIGINT)"
    grown = f"({condition}) AND NEW.held > OLD.held" if growth_only else condition
    if url.startswith("sqlite"):
        triggers = [
            f"CREATE TRIGGER watch_new AFTER INSERT ON counter WHEN {condition} BEGIN {note}; END",
            f"CREATE TRIGGER watch AFTER UPDATE ON counter WHEN {grown} BEGIN {note}; END",
        ]
    else:
        triggers = [
            f"CREATE FUNCTION note_breach() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note}; RETURN NULL; END $$",
            f"CREATE TRIGGER watch_new AFTER INSERT ON counter FOR EACH ROW WHEN ({condition})"
            " EXECUTE FUNCTION note_breach()",
            f"CREATE TRIGGER watch AFTER UPDATE ON counter FOR EACH ROW WHEN ({grown}) EXECUTE FUNCTION note_breach()",
        ]
    await rows(url, made, *triggers)


async def idle(url: str, wait_s: float) -> bool:
    """Wait until nothing is held by anybody; False when that does not come."""
    question = f"SELECT ({_OPEN}) + (SELECT COUNT(*) FROM counter WHERE held <> 0)"
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    while await number(url, question):
        if loop.time() > until_s:
            return False
        await asyncio.sleep(0.1)
    return True


async def check_sums(url: str, report: Report) -> None:
    """No cap passed, nothing held, and every counter the sum of its records."""
    for scope, subject, dimension, used, held in await rows(url, "SELECT * FROM breach LIMIT 5"):
        report.must(False, f"the cap of {scope} {subject}, {dimension}, was passed: {used} used and {held} held")
    report.figures["caps passed"] = await number(url, "SELECT COUNT(*) FROM breach")
    held = await number(url, "SELECT CAST(COALESCE(SUM(held), 0) AS BIGINT) FROM counter")
    opened = await number(url, _OPEN)
    report.must(not held and not opened, f"{held} are held, and {opened} holds are open: no call is in flight")
    report.figures["held"] = held
    pairs = "SELECT DISTINCT scope, dimension FROM counter"
    counters = 0
    for scope, dimension in await rows(url, pairs):
        if (scope, dimension) not in _SUMS:
            report.must(False, f"nobody knows the sum of {scope} {dimension}")
            continue
        subject, amount = _SUMS[scope, dimension]
        counted = await rows(
            url,
            "SELECT subject, CAST(SUM(used) AS BIGINT) FROM counter"
            f" WHERE scope = '{scope}' AND dimension = '{dimension}' GROUP BY subject",
        )
        truth = dict(
            tuple(row)
            for row in await rows(url, f"SELECT {subject}, CAST({amount} AS BIGINT) FROM usage_record GROUP BY 1")
        )
        counters += len(counted)
        for name, used in counted:
            found = truth.get(name, 0)
            report.must(used == found, f"{scope} {name}: {used} {dimension} counted, the records have {found}")
    report.figures["counters"] = counters


async def check_calls(url: str, seen: Sequence[Seen], report: Report) -> None:
    """Every call that a client saw complete is on record once with its units; what began is on record once; nothing
    that nobody asked for is."""
    records: dict[str, list[Any]] = {}
    for call_id, units, outcome in await rows(url, _RECORDS):
        records[call_id] = [units, outcome]
    complete = [one for one in seen if one.complete]
    begun = [one for one in seen if one.status == 200 and not one.complete]
    nameless = [one for one in seen if one.status == 0]
    for one in complete:
        found = records.get(one.call_id or "")
        if found is None:
            report.must(False, f"call {one.call_id} was complete and is not on record")
        else:
            wanted = one.wish.units * MICRO
            report.must(found[0] == wanted, f"call {one.call_id} took {wanted} and is on record with {found[0]}")
    for one in begun:
        report.must(one.call_id in records, f"call {one.call_id} had begun and is not on record")
    ids = Counter(one.call_id for one in seen if one.status == 200)
    report.must(all(count == 1 for count in ids.values()), "two calls had the same id")
    unknown = set(records) - set(ids)
    # Who was killed before the head was sent had a name, but nobody learned it.
    most = len(nameless)
    report.must(len(unknown) <= most, f"{len(unknown)} records are of calls that no client knows ({most} may be)")
    twice = await rows(
        url,
        "SELECT response_id, COUNT(*) FROM usage_record WHERE corrects IS NULL AND response_id IS NOT NULL"
        " GROUP BY response_id HAVING COUNT(*) > 1",
    )
    report.must(not twice, f"{len(twice)} answers of the provider are on record twice")
    recovered = "SELECT COUNT(*) FROM usage_record WHERE note = 'recovered'"
    report.figures |= {
        "calls": len(seen),
        "complete": len(complete),
        "cut off": len(begun),
        "refused": sum(one.status not in (0, 200) for one in seen),
        "unanswered": len(nameless),
        "records": len(records),
        "recovered": await number(url, recovered),
        "corrected": await number(url, "SELECT COUNT(*) FROM usage_record WHERE corrects IS NOT NULL"),
    }


def doctor(folder: Path, report: Report) -> None:
    """``gatekeeper doctor`` says that all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "gatekeeper.cli.main", "doctor", "--config", str(folder / "gateway.toml"), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        report.figures["doctor"] = "ok"
        return
    try:
        said = [check for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    except ValueError:
        said = [done.stderr]
    report.figures["doctor"] = "WRONG"
    report.must(False, f"the doctor says: {said}")
