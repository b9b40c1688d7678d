"""The systems under test, each started as a process of its own in front of one provider, on the proxy's core."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from bench.machine import pinned, tree
from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.clock import SystemClock
from gatekeeper.config import load_gateway
from gatekeeper.stores import open_store
from tests.fakes.cluster import Cluster, binaries

ROOT = Path(__file__).resolve().parent.parent
# LiteLLM imports for that long on a busy machine.
START_TIMEOUT_S = 90.0
# Variables that would beat what stands in the configuration.
_NOT_PASSED_ON = ("PORT", "DATABASE_URL", "ADMIN_API_KEY")

NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream provider {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        if ($http_authorization = "") {{ return 401; }}
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer sk-upstream";
            proxy_buffering off;
        }}
    }}
}}
"""

GATEWAY = """
plans = "plans"
[server]
port = {port}
[database]
url = "{url}"
[ledger]
durability = "strict"
[upstreams.provider]
url = "http://127.0.0.1:{upstream}"
auth = {{ type = "bearer", key = "sk-upstream" }}
connections_max = 2_000
[defaults]
meter = "usage().total"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
methods = ["POST"]
upstream = "provider"
[keys]
default_plan = "bench"
[[limits]]
scope = "key"
dollars = "1000000"
window = "month"
[[rates]]
scope = "key"
requests = 1_000_000_000
per = "minute"
"""

# A quota that can refuse (so that streams extend their holds) and a rate: what a call on a usual plan stands on.
PLAN = """
name = "Bench"
monthly_price = 99
[quota]
units = 1_000_000_000_000
window = "month"
[[rates]]
units = 1_000_000_000_000
per = "minute"
"""


@dataclass
class System:
    """Something that answers on a port. ``pids`` are what its CPU time is counted over; ``beside`` are the first
    processes of a database of its own."""

    name: str
    port: int
    key: str = "sk-bench"
    # Sent with every call.
    headers: dict[str, str] = field(default_factory=dict)
    # It writes answers anew: what is in them can be checked, their bytes cannot.
    rewrites: bool = False
    process: "subprocess.Popen[bytes] | None" = None
    beside: list[int] = field(default_factory=list)
    # Of the database: for the figure of one durable commit.
    database_url: str = ""

    @property
    def pids(self) -> list[int]:
        """Its processes, now."""
        return tree(self.process.pid) if self.process is not None else []

    @property
    def database_pids(self) -> list[int]:
        """The processes of its database, now."""
        return [pid for top in self.beside for pid in tree(top)]


@dataclass(frozen=True)
class Rig:
    """What every system is started with."""

    folder: Path
    provider_port: int
    proxy_core: int | None


Starter = Callable[[Rig, ExitStack], System]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def provider(core: int | None) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """The fake provider: (port, process)."""
    with (
        pinned(core),
        subprocess.Popen(
            [sys.executable, "-m", "bench.provider"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        yield int(process.stdout.readline()), process
        process.communicate("", timeout=10)


def spawn(rig: Rig, stack: ExitStack, system: System, command: list[str]) -> System:
    """Start a system on the proxy's core and wait until it answers. Raises RuntimeError with what it said."""
    passed_on = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    log = stack.enter_context((rig.folder / f"{system.name}.log").open("wb"))
    with pinned(rig.proxy_core):
        system.process = subprocess.Popen(command, cwd=ROOT, env=passed_on, stdout=log, stderr=log)
    stack.callback(_stop, system.process)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", system.port), timeout=1).close()
            return system
        except OSError:
            if system.process.poll() is not None or time.monotonic() > deadline_s:
                said = (rig.folder / f"{system.name}.log").read_text()[-2_000:]
                raise RuntimeError(f"{system.name} did not start:\n{said}") from None
            time.sleep(0.05)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_direct(rig: Rig, stack: ExitStack) -> System:
    """No proxy: the provider itself."""
    return System("direct", rig.provider_port)


def start_nginx(rig: Rig, stack: ExitStack) -> System:
    """One worker, not buffering, with connections kept upstream."""
    folder = rig.folder / "nginx"
    folder.mkdir(mode=0o755)
    system = System("nginx", free_port())
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=system.port, upstream=rig.provider_port))
    return spawn(rig, stack, system, ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])


def _python_proxy(name: str, module: str) -> Starter:
    def start(rig: Rig, stack: ExitStack) -> System:
        system = System(name, free_port())
        command = [sys.executable, "-m", f"bench.proxies.{module}", str(system.port), str(rig.provider_port)]
        return spawn(rig, stack, system, command)

    return start


def whole(
    rig: Rig,
    stack: ExitStack,
    name: str,
    database_url: str,
    runner: tuple[str, ...] = (),
    module: str = "gatekeeper.cli.main",
) -> System:
    """``gatekeeper serve`` with everything on, on an empty database. ``module`` is run with its words."""
    folder = rig.folder / name
    (folder / "plans").mkdir(parents=True)
    system = System(name, free_port(), database_url=database_url)
    text = GATEWAY.format(port=system.port, url=database_url, upstream=rig.provider_port)
    (folder / "gateway.toml").write_text(text)
    (folder / "plans" / "bench.toml").write_text(PLAN)
    system.key = asyncio.run(_make_key(folder / "gateway.toml"))
    command = [sys.executable, *runner, "-m", module, "serve", "--config", str(folder / "gateway.toml")]
    return spawn(rig, stack, system, command)


async def _make_key(config: Path) -> str:
    gateway = load_gateway(config, {})
    clock = SystemClock()
    store = await open_store(gateway.database_url.reveal(), clock=clock)
    try:
        accounts = Accounts(store, store, lambda: gateway, clock)
        await accounts.create_customer("Bench", plan_id="bench", customer_id="bench")
        return (await accounts.create_key("bench", KeyWish(name="bench"))).secret
    finally:
        await store.close()


def start_whole_sqlite(rig: Rig, stack: ExitStack, runner: tuple[str, ...] = ()) -> System:
    """``gatekeeper serve`` with everything on, on a file. ``runner`` stands before ``-m gatekeeper``."""
    return whole(rig, stack, "whole-sqlite", f"sqlite:///{rig.folder / 'whole.sqlite'}", runner)


def start_whole_postgres(rig: Rig, stack: ExitStack) -> System:
    """The same on a Postgres of our own, which may run on any core."""
    found = binaries()
    assert found is not None
    cluster = Cluster(found)
    stack.callback(cluster.stop)
    system = whole(rig, stack, "whole-postgres", cluster.dsn)
    system.beside = [int((cluster.folder / "cluster" / "postmaster.pid").read_text().split()[0])]
    return system


START: dict[str, Starter] = {
    "direct": start_direct,
    "nginx": start_nginx,
    "bare": _python_proxy("bare", "bare"),
    "whole-sqlite": start_whole_sqlite,
    "whole-postgres": start_whole_postgres,
    "aiohttp": _python_proxy("aiohttp", "aiohttp_client"),
    "httpx": _python_proxy("httpx", "httpx_client"),
}
QUICK = ("direct", "nginx", "bare", "whole-sqlite", "aiohttp")
FULL = tuple(START)


def absent() -> dict[str, str]:
    """Systems that cannot be measured here, with the reason."""
    found = {}
    if shutil.which("nginx") is None:
        found["nginx"] = "nginx is not installed"
    if find_spec("aiohttp") is None:
        found["aiohttp"] = "aiohttp is not installed"
    if binaries() is None:
        found["whole-postgres"] = "no Postgres binaries"
    return found
