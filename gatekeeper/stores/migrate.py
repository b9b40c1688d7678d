"""Bringing a database to the present schema. The rule: numbered files, applied once each and in order, all in one
transaction that only one process can be in; a database that is newer than this code is refused.

A step that Postgres takes another way has a second file beside it, as 0003_months_postgres.sql.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gatekeeper.stores.database import Ask, Database, Script, Steps, fault

_FILE = re.compile(r"(\d{4})_(\w+?)(_postgres)?\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. ``postgres`` is its text for Postgres where that differs."""

    number: int
    name: str
    text: str
    postgres: str | None = None


@cache
def migrations(folder: Path = Path(__file__).parent / "migrations") -> tuple[Migration, ...]:
    """All migrations, first first. Raises ValueError when a number is missing or stands twice."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise ValueError(f"{file.name} is not named like 0001_what.sql")
        if match[3] is None:
            beside = file.with_name(f"{file.stem}_postgres.sql")
            postgres = beside.read_text() if beside.is_file() else None
            found.append(Migration(int(match[1]), match[2], file.read_text(), postgres))
        elif not file.with_name(f"{match[1]}_{match[2]}.sql").is_file():
            raise ValueError(f"{file.name} stands beside no {match[1]}_{match[2]}.sql")
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("the migrations are not numbered 1, 2, 3")
    return tuple(found)


async def migrate(database: Database, known: tuple[Migration, ...] | None = None) -> int:
    """Apply what is missing; returns how many were. Raises Fault for a database that is newer than this code.

    Looks first without a lock: a process whose database user may not create tables starts on a schema that is current.
    """
    known = migrations() if known is None else known
    applied = await database.read(applied_migrations)
    if _missing(known, applied):
        return await database.write(lambda: _migrate(known))
    return 0


def applied_migrations() -> Steps[list[int]]:
    """A unit of work: the numbers of the migrations that the database has had, in order; none for an empty one."""
    rows = yield Ask("has_migrations")
    if not rows[0][0]:
        return []
    return [number for number, _ in (yield Ask("migrations"))]


def _missing(known: tuple[Migration, ...], applied: list[int]) -> list[Migration]:
    newest = max(applied, default=0)
    if newest > len(known):
        raise fault(
            f"the database is at migration {newest} and this gatekeeper knows {len(known)}: "
            "install the newer gatekeeper that made it"
        )
    return [migration for migration in known if migration.number not in applied]


def _migrate(known: tuple[Migration, ...]) -> Steps[int]:
    yield Ask("be_patient")
    yield Ask("lock_migrations")
    yield Ask("create_migrations")
    # Again, now that nobody else can: two processes may have seen the same gap.
    missing = _missing(known, (yield from applied_migrations()))
    for migration in missing:
        yield Script(migration.text, migration.postgres)
        yield Ask("add_migration", {"number": migration.number, "name": migration.name})
    return len(missing)
