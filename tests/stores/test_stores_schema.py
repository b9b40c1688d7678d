"""The schema and the statements: the same however they are built, and refused when they are not ours."""

import asyncio
import re
from pathlib import Path

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.stores import open_store
from gatekeeper.stores.database import Ask, AskMany, Script
from gatekeeper.stores.migrate import migrate, migrations
from gatekeeper.stores.postgres import PostgresDatabase
from gatekeeper.stores.queries import HERE, for_postgres, for_sqlite, parse
from gatekeeper.stores.sqlite import SqliteDatabase

SQLITE_SHAPE = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE tbl_name <> 'schema_migration' ORDER BY 1, 2"
POSTGRES_SHAPE = (
    """SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'schema_migration' ORDER BY 1, 3""",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'schema_migration' ORDER BY 1",
    """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'schema_migration' ORDER BY 1, 2""",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1",
    """SELECT c.relname, c.relkind::text, pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid)
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND (c.relispartition OR c.relkind IN ('p', 'I'))
    ORDER BY 1""",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
)


def _script(text):
    yield Script(text, text.replace("-- postgres: ", ""))


async def _built(database, how):
    if how == "migrations":
        assert await migrate(database) == len(migrations())
        assert await migrate(database) == 0
    else:
        await database.write(lambda: _script((HERE / "schema.sql").read_text()))
    await database.close()


def test_the_schema_is_what_all_migrations_make_on_sqlite(tmp_path, sql):
    shapes = []
    for how in ("migrations", "schema"):
        path = tmp_path / how

        async def build(path=path, how=how):
            await _built(await SqliteDatabase.open(path), how)

        asyncio.run(build())
        # A column that was added stands in the same place, on a line that is not its own, behind a comma of its own.
        rows = sql(f"sqlite:///{path}", SQLITE_SHAPE)
        shapes.append(
            [(*names, None if text is None else re.sub(r"\s*([,()])\s*|\s+", r" \1", text)) for *names, text in rows]
        )
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) > 15


def test_the_schema_is_what_all_migrations_make_on_postgres(empty_postgres_url, postgres_url, postgres_execute):
    async def build():
        await _built(await PostgresDatabase.open(empty_postgres_url), "schema")

    asyncio.run(build())
    for question in POSTGRES_SHAPE:
        made = postgres_execute(empty_postgres_url, question)
        assert made == postgres_execute(postgres_url, question)
        assert made


def test_a_database_that_is_newer_than_the_code_is_refused(with_store, store_url, sql):
    async def body(store):
        await store.ping()

    with_store(body)
    sql(store_url, "INSERT INTO schema_migration (number, name) VALUES (999, 'later')")
    with pytest.raises(Fault, match="migration 999 and this gatekeeper knows"):
        asyncio.run(open_store(store_url, clock=SystemClock()))


def test_a_migration_that_fails_changes_nothing(tmp_path, sql):
    known = migrations()
    broken = (*known, type(known[0])(len(known) + 1, "broken", "CREATE TABLE half (x BIGINT);\nCREATE TABLE half (y);"))

    async def run():
        database = await SqliteDatabase.open(tmp_path / "x")
        with pytest.raises(Fault, match="half"):
            await migrate(database, broken)
        await database.close()

    asyncio.run(run())
    assert sql(f"sqlite:///{tmp_path}/x", "SELECT name FROM sqlite_master") == []


def test_migrations_are_numbered_without_a_gap(tmp_path):
    (tmp_path / "0001_one.sql").write_text("SELECT 1;")
    (tmp_path / "0003_three.sql").write_text("SELECT 1;")
    with pytest.raises(ValueError, match="numbered"):
        migrations(tmp_path)
    (tmp_path / "2.sql").write_text("")
    with pytest.raises(ValueError, match="named like"):
        migrations(Path(f"{tmp_path}/."))


def test_a_migration_may_have_a_text_of_its_own_for_postgres(tmp_path):
    (tmp_path / "0001_one_two.sql").write_text("SELECT 1;")
    (tmp_path / "0002_three.sql").write_text("SELECT 2;")
    (tmp_path / "0002_three_postgres.sql").write_text("SELECT 22;")
    assert [(one.name, one.text, one.postgres) for one in migrations(tmp_path)] == [
        ("one_two", "SELECT 1;", None),
        ("three", "SELECT 2;", "SELECT 22;"),
    ]
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "0001_four_postgres.sql").write_text("SELECT 3;")
    with pytest.raises(ValueError, match="beside no 0001_four"):
        migrations(tmp_path / "else")


def test_every_statement_has_a_sentence_and_the_databases_know_them_all(empty_postgres_url, tmp_path):
    assert set(for_sqlite()) == set(for_postgres())
    for query in for_sqlite().values():
        assert query.sentence.endswith(".") or query.sentence.endswith(":"), query.name
    overrides = parse((HERE / "queries_postgres.sql").read_text())
    assert set(overrides) <= set(for_sqlite())
    for name, query in overrides.items():
        # asked with the same names, or fewer (the clock of Postgres is its own)
        assert set(query.parameters) <= set(for_sqlite()[name].parameters), name

    async def run():
        sqlite = await SqliteDatabase.open(tmp_path / "x")
        postgres = await PostgresDatabase.open(empty_postgres_url)
        for database in (sqlite, postgres):
            await migrate(database)
        for name, query in for_sqlite().items():
            if not query.text.startswith(("INSERT", "UPDATE", "CREATE")) and name != "has_migrations":
                args = {word: _argument(word) for word in query.parameters}
                step = AskMany(name, [tuple(args.values())]) if query.takes_rows else Ask(name, args)
                columns = [await database.write(_asking(step)) for database in (sqlite, postgres)]
                assert len(columns[0]) == len(columns[1]), name
        await sqlite.close()
        await postgres.close()

    asyncio.run(run())


_NUMBERS = {
    "least", "limit", "skipped", "status", "status_class", "version", "spent", "used", "held",
}  # fmt: skip


def _argument(word):
    if word in ("keys", "days", "hours", "spans"):
        return "[]"
    return 1 if word.endswith("_ms") or word in _NUMBERS else "x"


def _asking(step):
    def work():
        rows = yield step
        return rows

    return work


def test_a_filter_makes_four_statements_of_one_and_no_name_stands_twice():
    text = "-- name: one\n-- Says one.\nSELECT :a, :b, :a WHERE 1 = 1 {who};\n"
    found = parse(text)
    assert list(found) == ["one", "one/customer", "one/key", "one/both"]
    assert found["one/both"].parameters == ("a", "b", "key_id", "customer_id")
    with pytest.raises(ValueError, match="twice"):
        parse(text + text)
