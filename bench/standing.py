"""A ``gatekeeper serve`` with one worker that stands before the truthful provider and is watched from outside.

The rule: figures come from /proc, from the provider and from the database, never from the gateway's own word; only the
tasks in its loop can be told by nobody else (see ``watched``).
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.answers import PRICES
from bench.callers import ask
from bench.machine import memory_bytes, pinned
from bench.systems import ROOT, Rig, System, free_port, spawn
from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.clock import SystemClock
from gatekeeper.config import load_gateway
from gatekeeper.stores import open_store
from tests.fakes.cluster import Cluster, binaries

ADMIN_KEY = "truth"
CUSTOMER = "truth"
# The prefix of the routes whose provider fails; the others' never does.
FLAKY = "/flaky"
# Nobody holds as much: the cap is there so that it can be watched.
CAP_DOLLARS = 1_000_000
CAP_NANO = CAP_DOLLARS * 10**9
QUOTA_UNITS = 1_000
# Of the plan, above the quota.
NANO_PER_UNIT = 3_000
STALL_S = 2
_TOLD_WITHIN_S = 10.0

CONFIG = """
plans = "plans"
[server]
port = {port}
drain_s = 5
[database]
url = "{url}"
[admin]
key = "{admin}"
[ledger]
journal = "journal"
[upstreams.steady]
url = "http://127.0.0.1:{provider}"
connections_max = 5_000
[upstreams.flaky]
url = "http://127.0.0.1:{provider}"
connections_max = {flaky_max}
timeouts_s = {{ first_byte = {stall_s}, idle = {stall_s} }}
[defaults]
meter = "usage().total"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
methods = ["POST"]
upstream = "steady"
[[routes]]
name = "messages"
path = "/v1/messages"
methods = ["POST"]
upstream = "steady"
[[routes]]
name = "flaky-chat"
path = "/flaky/v1/chat/completions"
methods = ["POST"]
upstream = "flaky"
rewrite = "/v1/chat/completions"
[[routes]]
name = "flaky-messages"
path = "/flaky/v1/messages"
methods = ["POST"]
upstream = "flaky"
rewrite = "/v1/messages"
[keys]
default_plan = "truth"
"""
PLAN = f"""
name = "Truth"
monthly_price = 0
[quota]
units = {QUOTA_UNITS}
window = "total"
when_used = "overage"
[overage]
price = "3"
per = "1M tokens"
[[limits]]
dollars = "{CAP_DOLLARS}"
window = "total"
[[rates]]
requests = 1_000_000_000
per = "minute"
"""


@contextmanager
def truthful(core: int | None, seed: int) -> Iterator[int]:
    """The provider; its port."""
    with (
        pinned(core),
        subprocess.Popen(
            [sys.executable, "-m", "bench.truthful", str(seed)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            # The connections of whoever breaks off must not keep it alive.
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def database(stack: ExitStack, kind: str, folder: Path) -> str:
    """The URL of a new database. Raises RuntimeError where there is no Postgres."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'truth.sqlite'}"
    found = binaries()
    if found is None:
        raise RuntimeError("there are no Postgres binaries on this machine")
    cluster = Cluster(found)
    stack.callback(cluster.stop)
    return cluster.dsn


@dataclass(frozen=True)
class Sample:
    """One look at the process. ``kinds`` counts tasks by what they run, ``opened`` descriptors by what they are."""

    at_s: float
    rss_kib: int
    descriptors: int
    threads: int
    tasks: int
    upstream: int
    kinds: dict[str, int]
    opened: dict[str, int]

    @property
    def files(self) -> int:
        """Descriptors of files: the database's and the journal's are opened when they are needed first, and kept."""
        return sum(count for name, count in self.opened.items() if name.startswith("/"))

    @property
    def own(self) -> int:
        """Descriptors that are neither files nor connections to the provider."""
        return self.descriptors - self.files - self.upstream


@dataclass
class Standing:
    """The gateway. ``keys`` are ids and secrets; ``revoked`` has when each was revoked (``time.monotonic``)."""

    system: System
    folder: Path
    url: str
    provider_port: int
    keys: dict[str, str] = field(default_factory=dict)
    revoked: dict[str, float] = field(default_factory=dict)
    generation: int = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.system.port

    @property
    def pid(self) -> int:
        """Its only process."""
        assert self.system.process is not None
        return self.system.process.pid

    def log(self) -> str:
        """All that it said."""
        return (self.folder.parent / "truth.log").read_text(errors="replace")

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.system.process is not None
        self.system.process.terminate()
        return self.system.process.wait(timeout=60)

    def reload(self, *, broken: bool) -> None:
        """Write the configuration anew, never twice the same, and say so. A broken one must change nothing."""
        self.generation += 1
        text = _config(self.port, self.url, self.provider_port, self.generation)
        (self.folder / "gateway.toml").write_text(text + ("\nnobody = knows\n" if broken else ""))
        os.kill(self.pid, signal.SIGHUP)

    def mend(self) -> None:
        """The configuration as it can be read, for whoever reads it next."""
        text = _config(self.port, self.url, self.provider_port, self.generation)
        (self.folder / "gateway.toml").write_text(text)

    async def admin(self, method: str, path: str, body: object = None) -> dict[str, object]:
        """One call of the admin API. Raises RuntimeError when it is refused."""
        status, said = await ask(self.port, method, path, body, {"X-Admin-Key": ADMIN_KEY})
        if status >= 300:
            raise RuntimeError(f"{method} {path} was answered with {status}: {said}")
        found: dict[str, object] = said
        return found

    async def new_key(self) -> None:
        """One key more."""
        made = await self.admin("POST", f"/admin/customers/{CUSTOMER}/keys", {"name": "truth"})
        self.keys[str(made["id"])] = str(made["key"])

    async def revoke(self, key_id: str) -> str:
        """One key less; its secret. From the answer on it counts as revoked."""
        secret = self.keys.pop(key_id)
        await self.admin("DELETE", f"/admin/keys/{key_id}")
        self.revoked[secret] = time.monotonic()
        return secret

    async def provider(self) -> dict[str, int]:
        """What the provider has open and under way."""
        _, said = await ask(self.provider_port, "GET", "/stats")
        found: dict[str, int] = said
        return found

    async def sample(self) -> Sample:
        """Look at it. Raises RuntimeError when it says nothing about its tasks."""
        told = self.folder / "tasks.json"
        told.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        deadline_s = time.monotonic() + _TOLD_WITHIN_S
        while not told.exists():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the gateway does not answer a signal:\n{self.log()[-2_000:]}")
            await asyncio.sleep(0.01)
        kinds: dict[str, int] = json.loads(told.read_text())["tasks"]
        status = self._status()
        opened = self._opened()
        return Sample(
            at_s=time.monotonic(),
            rss_kib=int(status["VmRSS"].split()[0]),
            descriptors=sum(opened.values()),
            threads=int(status["Threads"]),
            tasks=sum(kinds.values()),
            upstream=(await self.provider())["open"],
            kinds=kinds,
            opened=opened,
        )

    def _opened(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            # One that is closed meanwhile was open.
            with contextlib.suppress(OSError):
                found[os.readlink(descriptor).partition(":[")[0]] += 1
        return dict(found)

    def _status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    def pss_kib(self) -> float:
        """Its memory; what it shares with other processes is divided among them."""
        return memory_bytes([self.pid]) / 1024


def _config(port: int, url: str, provider_port: int, generation: int) -> str:
    text = CONFIG.format(
        port=port, url=url, provider=provider_port, admin=ADMIN_KEY, stall_s=STALL_S, flaky_max=1_000 + generation
    )
    return text + PRICES


def stand(rig: Rig, stack: ExitStack, url: str, *, keys: int = 4) -> Standing:
    """Start it on the rig's core, with one customer and some keys."""
    folder = rig.folder / "truth"
    (folder / "plans").mkdir(parents=True)
    (folder / "plans" / "truth.toml").write_text(PLAN)
    system = System("truth", free_port(), database_url=url)
    standing = Standing(system, folder, url, rig.provider_port)
    standing.mend()
    standing.keys = asyncio.run(_make_keys(folder / "gateway.toml", keys))
    command = [sys.executable, "-m", "bench.watched", str(folder / "tasks.json")]
    spawn(rig, stack, system, [*command, "serve", "--config", str(folder / "gateway.toml")])
    return standing


async def _make_keys(config: Path, count: int) -> dict[str, str]:
    gateway = load_gateway(config, {})
    clock = SystemClock()
    store = await open_store(gateway.database_url.reveal(), clock=clock)
    try:
        accounts = Accounts(store, store, lambda: gateway, clock)
        await accounts.create_customer("Truth", plan_id="truth", customer_id=CUSTOMER)
        made = [await accounts.create_key(CUSTOMER, KeyWish(name="truth")) for _ in range(count)]
        return {one.key.id: one.secret for one in made}
    finally:
        await store.close()
