"""A whole gateway for tests: real server, real sockets, real database, in a thread with a loop of its own."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from fakes.origin import Behaviour, Origin

from gatekeeper.accounts import KeyWish
from gatekeeper.assembly import House, build_house
from gatekeeper.cli.server import TellingServer, listen, uvicorn_server
from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import Gateway
from gatekeeper.people.passwords import Passwords
from gatekeeper.ports import UsageRecord
from gatekeeper.rules.lines import Bounds, Subject, stock_lines

UPSTREAM_KEY = "sk-upstream-secret"
ADMIN_KEY = "admin-secret"

ROUTES = """
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
[[routes]]
name = "completions"
path = "/v1/completions"
upstream = "origin"
[[routes]]
name = "embeddings"
path = "/v1/embeddings"
upstream = "origin"
[[routes]]
name = "responses"
path = "/v1/responses"
upstream = "origin"
[[routes]]
name = "messages"
path = "/v1/messages"
upstream = "origin"
[[routes]]
name = "gemini"
path = "/v1beta/models/{model}:generateContent"
upstream = "origin"
[[routes]]
name = "gemini-stream"
path = "/v1beta/models/{model}:streamGenerateContent"
upstream = "origin"
"""

PLANS = {
    "free.toml": """
name = "Free"
monthly_price = 0
clamp_output = true
[quota]
units = 10_000
window = "month"
when_used = "block"
[[rates]]
units = 1_000
per = "minute"
""",
    "pro.toml": """
name = "Pro"
monthly_price = 99
[quota]
units = 1_000_000
window = "month"
when_used = "overage"
[overage]
price = "0.001"
per = "1 token"
""",
}


def gateway_text(
    database_url: str,
    port: int,
    routes: str = ROUTES,
    *,
    ledger: str = "",
    server: str = "",
    silence_s: float = 3,
    others: Sequence[int] = (),
    upstream: str = "",
) -> str:
    """A gateway.toml with one upstream at a port of this machine, and ``others`` named origin2, origin3 and so on; each
    with the further keys ``upstream``."""
    more = "".join(
        f"""
[upstreams.origin{number}]
url = "http://127.0.0.1:{other}"
auth = {{ type = "bearer", key = "{UPSTREAM_KEY}-{number}" }}
timeouts_s = {{ connect = 2, first_byte = {silence_s}, idle = {silence_s} }}
{upstream}
"""
        for number, other in enumerate(others, 2)
    )
    return f"""
plans = "plans"
[server]
{server}
[database]
url = "{database_url}"
[admin]
key = "{ADMIN_KEY}"
[ledger]
{ledger}
[upstreams.origin]
url = "http://127.0.0.1:{port}"
auth = {{ type = "bearer", key = "{UPSTREAM_KEY}" }}
timeouts_s = {{ connect = 2, first_byte = {silence_s}, idle = {silence_s} }}
{upstream}
{more}
[defaults]
meter = "usage().total"
{routes}
"""


class Stand:
    """A running gateway with an upstream, a customer ``acme`` and a key."""

    def __init__(
        self,
        house: House,
        origin: Origin,
        url: str,
        key: str,
        front: TellingServer,
        loop: asyncio.AbstractEventLoop,
        others: Sequence[Origin] = (),
    ) -> None:
        self.origins = [origin, *others]
        self.house = house
        self._front = front
        self.origin = origin
        self.url = url
        self.key = key
        self.loop = loop

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._front.server_state.connections)

    def stop(self) -> None:
        """Begin to shut down; the end of the ``running`` block waits for it."""
        self._front.should_exit = True

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=30)

    def wait_until(self, true: Callable[[], Awaitable[bool]], timeout_s: float = 10.0) -> None:
        """Wait for something that the gateway does on its own; fails after ``timeout_s``."""

        async def waiting() -> None:
            async with asyncio.timeout(timeout_s):
                while not await true():  # noqa: ASYNC110 - it is the gateway's own doing that is awaited
                    await asyncio.sleep(0.01)

        self.run(waiting())

    def records(self, count: int | None = None, customer_id: str = "acme") -> list[UsageRecord]:
        """The usage records, oldest first; with ``count``, waits until there are so many."""
        found: list[UsageRecord] = []

        async def enough() -> bool:
            found[:] = await self.house.store.records(customer_id=customer_id, limit=1000)
            return count is None or len(found) >= count

        self.wait_until(enough)
        return sorted(found, key=lambda record: (record.started_ms, record.call_id))

    def record(self) -> UsageRecord:
        """The one record there is."""
        records = self.records(1)
        assert len(records) == 1, records
        return records[0]

    def make_key(self, customer_id: str = "acme", **wish: Any) -> str:
        """A further key."""
        secret: str = self.run(self.house.accounts.create_key(customer_id, KeyWish(**wish))).secret
        return secret

    def held_micro(self) -> int:
        """What is held on all counters of the customer's month and period."""

        async def held() -> int:
            gateway = self.house.live.gateway
            customer = await self.house.store.customer("acme")
            assert customer is not None
            plan = gateway.plans[customer.plan_id]
            subject = Subject(customer.id, plan.id, "", customer.anchor_ms)
            lines = stock_lines(plan, subject, Bounds(), int(time.time() * 1000))
            return sum(state.held for state in await self.house.store.counters([line.key for line in lines]))

        result: int = self.run(held())
        return result


async def _told_to_stop(front: TellingServer) -> None:
    """uvicorn looks ten times a second whether it is to stop, and hundreds of tests would wait for its next look."""
    await front.on_tick(0)
    while not front.should_exit:  # noqa: ASYNC110 - whoever stops it is in another thread
        await asyncio.sleep(0.01)


async def _built(gateway: Gateway, plan: str) -> tuple[House, str]:
    """The gateway with its customer, and a key."""
    # A hash that takes no time: what the real one takes is tested in tests/people.
    cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    house = await build_house(gateway, passwords=cheap)
    if await house.store.customer("acme") is None:
        await house.accounts.create_customer("Acme", customer_id="acme", plan_id=plan)
    return house, (await house.accounts.create_key("acme", KeyWish(name="test"))).secret


@contextlib.contextmanager
def running(
    tmp_path: Path,
    behave: Behaviour,
    *,
    plan: str = "pro",
    routes: str = ROUTES,
    plans: dict[str, str] | None = None,
    database_url: str | None = None,
    ledger: str = "",
    server: str = "",
    silence_s: float = 3,
    others: Sequence[Behaviour] = (),
    upstream: str = "",
    variables: dict[str, str] | None = None,
) -> Iterator[Stand]:
    """A gateway that runs until the block ends, then settles and closes everything. ``others`` are more upstreams;
    ``variables`` is its environment."""
    ready: list[Stand] = []
    failed: list[BaseException] = []
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        origin = Origin(behave)
        further = [Origin(each) for each in others]
        for each in (origin, *further):
            await each.start()
        written = {"ledger": ledger, "server": server, "silence_s": silence_s, "upstream": upstream}
        url = database_url or f"sqlite:///{tmp_path / 'gateway.sqlite'}"
        text = gateway_text(url, origin.port, routes, others=[each.port for each in further], **written)
        house, secret = await _built(parse_gateway(text, "gateway.toml", plans or PLANS, variables or {}), plan)
        bound = listen("127.0.0.1", 0)
        front = uvicorn_server(house.app, house.live.gateway.server)
        front.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        front.main_loop = lambda: _told_to_stop(front)  # type: ignore[method-assign]
        serving = asyncio.create_task(front.serve(sockets=[bound]))
        await front.up.wait()
        port = bound.getsockname()[1]
        loop = asyncio.get_running_loop()
        ready.append(Stand(house, origin, f"http://127.0.0.1:{port}", secret, front, loop, further))
        up.set()
        await asyncio.to_thread(stop.wait)
        front.should_exit = True
        await serving
        bound.close()
        for each in (origin, *further):
            await each.stop()

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # the test thread hears of it below
            failed.append(error)
        finally:
            up.set()

    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    thread = threading.Thread(target=main, name="gateway")
    thread.start()
    try:
        up.wait(30)
        if failed:
            raise failed[0]
        yield ready[0]
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive(), "the gateway did not stop"
    if failed:
        raise failed[0]
