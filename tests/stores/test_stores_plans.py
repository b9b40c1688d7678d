"""How Postgres carries out the ledger's statements: by keys, also when it planned them before anything was stored."""

import asyncio
import json
import re
from pathlib import Path

import asyncpg

from gatekeeper.stores import batch, claims
from gatekeeper.stores.migrate import migrate
from gatekeeper.stores.postgres import BEGIN_BATCH, SETTINGS, PostgresDatabase
from gatekeeper.stores.queries import for_postgres

# What batches ask, by the texts of the modules, and renewals.
ASKED = sorted(
    {"renew_hold"}.union(
        name
        for module in (batch, claims)
        for name in re.findall(r'(?:AskMany\(|_add\(|\(\(?)"([a-z_]+)"', Path(module.__file__).read_text())
        if name in for_postgres()
    )
)
READ = ("Index Scan", "Index Only Scan", "Bitmap Index Scan")
WHOLE = ("Seq Scan", "Hash Join", "Merge Join", "Hash")


def nodes(plan):
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def test_the_statements_are_those_of_the_ledger():
    wanted = {"lock_holds", "recorded_calls", "lock_counters", "add_hold", "add_record", "set_bucket", "claim_response"}
    assert wanted <= set(ASKED)
    assert len(ASKED) > 20


def test_no_statement_of_a_batch_reads_a_table_whole(empty_postgres_url):
    async def planned():
        database = await PostgresDatabase.open(empty_postgres_url)
        await migrate(database)
        await database.close()
        connection = await asyncpg.connect(empty_postgres_url, server_settings=SETTINGS)
        try:
            await connection.execute(BEGIN_BATCH)
            return {name: await explained(connection, for_postgres()[name]) for name in ASKED}
        finally:
            await connection.close()

    for name, text in asyncio.run(planned()).items():
        assert "hashed SubPlan" not in text, name
        (plan,) = json.loads(text)
        for node in nodes(plan["Plan"]):
            assert node["Node Type"] not in WHOLE, (name, node)
            assert node["Node Type"] not in READ or node.get("Index Cond"), (name, node)


async def explained(connection, query):
    """The plan that a session keeps, made without looking at parameters."""
    await connection.execute(f"PREPARE {query.name} AS {query.text}")
    args = f"({', '.join(['NULL'] * len(query.parameters))})" if query.parameters else ""
    return await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {query.name}{args}")
