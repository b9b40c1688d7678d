"""Fakes for the ports that a call passes: a client, an upstream and a ledger that do what a test says, in memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gatekeeper.clock import Clock
from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import (
    BucketState,
    CounterState,
    Customer,
    Holder,
    HoldOrder,
    Incoming,
    Key,
    Outgoing,
    Progress,
    RawHeaders,
    Settled,
    Settlement,
)
from gatekeeper.proxy.access import Directory
from gatekeeper.proxy.admit import Admission
from gatekeeper.proxy.call import Call, Credentials
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.exhausted import Exhausted
from gatekeeper.proxy.newcomers import Newcomers
from gatekeeper.proxy.outage import Outage
from gatekeeper.proxy.pipeline import Proxy
from gatekeeper.proxy.pulse import Pulse
from gatekeeper.proxy.settle import Settler
from gatekeeper.rules.keys import digest, make_key
from gatekeeper.rules.limits import Denied, Granted
from gatekeeper.rules.plans import Plan

SECRET = make_key(bytes(range(24)))
KEY = Key(id="key_1", customer_id="acme", name="", shown="gk_", created_ms=0)
CUSTOMER = Customer(id="acme", name="Acme", plan_id="pro", created_ms=0, anchor_ms=0)
PLAN = 'name = "Pro"\nmonthly_price = 0\n[quota]\nunits = 1000000\nwindow = "month"\n'


class FakeClock(Clock):
    """Time stands still until a test moves it; ``sleep`` moves it and lets others run."""

    def __init__(self) -> None:
        self.now_s = 1_750_000_000.0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


class FakeKeys:
    """Holders by digest; counts what is asked."""

    def __init__(self) -> None:
        self.holders: dict[str, Holder] = {digest(SECRET): Holder(KEY, CUSTOMER)}
        self.asked = 0
        self.touched: list[Mapping[str, int]] = []
        self.failure: Fault | None = None

    async def holder(self, wanted: str) -> Holder | None:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return self.holders.get(wanted)

    async def customer(self, customer_id: str) -> Customer | None:
        self.asked += 1
        return CUSTOMER if customer_id == CUSTOMER.id else None

    async def touch_keys(self, last_used_ms: Mapping[str, int]) -> None:
        if self.failure is not None:
            raise self.failure
        self.touched.append(last_used_ms)


class FakeLedger:
    """Grants everything, keeps every settlement; ``gate`` closed makes settle wait, ``faults`` make it fail first,
    ``away`` makes every hold fail (or, as a text, hang)."""

    def __init__(self) -> None:
        self.open: dict[str, HoldOrder] = {}
        self.settled: list[Settlement] = []
        self.renewed: list[Sequence[Progress]] = []
        self.lost: list[str] = []
        self.recoverable: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.faults = 0
        self.denial: Denied | None = None
        self.away: bool | str = False
        self.asked = 0
        self.at_hold: Callable[[], None] | None = None

    async def hold(self, order: HoldOrder) -> Granted | Denied:
        self.asked += 1
        if self.away:
            if self.away == "hangs":
                await asyncio.Event().wait()
            raise Fault("ledger", FaultKind.STORE, "away")
        if self.denial is not None:
            return self.denial
        await asyncio.sleep(0)
        self.open[order.call_id] = order
        if self.at_hold is not None:
            self.at_hold()
        return Granted(order.output_tokens)

    async def settle(self, settlement: Settlement) -> Settled:
        await self.gate.wait()
        if self.faults:
            self.faults -= 1
            raise Fault("ledger", FaultKind.STORE, "away")
        self.settled.append(settlement)
        return Settled(self.open.pop(settlement.record.call_id, None) is not None, settlement.record)

    async def renew(self, progress: Sequence[Progress], expires_ms: int) -> Sequence[str]:
        if self.faults:
            self.faults -= 1
            raise Fault("ledger", FaultKind.STORE, "away")
        self.renewed.append(progress)
        return self.lost

    async def recover(self, now_ms: int, plans: Mapping[str, Plan], *, limit: int = 100) -> int:
        return self.recoverable.pop(0) if self.recoverable else 0

    async def counters(self, keys: Sequence[object]) -> Sequence[CounterState]:
        return []

    async def buckets(self, keys: Sequence[object]) -> Sequence[BucketState]:
        return []


@dataclass
class FakeIncoming:
    """An answer from a queue: bytes, ``b""`` for the end, or an exception."""

    status: int
    headers: RawHeaders
    queue: "asyncio.Queue[bytes | BaseException]" = field(default_factory=asyncio.Queue)
    ended: bool = False

    async def read(self) -> bytes:
        if self.ended:
            return b""
        found = await self.queue.get()
        if isinstance(found, BaseException):
            raise found
        self.ended = found == b""
        return found

    def say(self, *pieces: bytes | BaseException) -> None:
        for piece in pieces:
            self.queue.put_nowait(piece)


class FakeUpstream:
    """Opens what the test prepared, in order."""

    def __init__(self) -> None:
        self.answers: list[FakeIncoming | BaseException] = []
        self.asked: list[Outgoing] = []
        self.uploaded: list[bytes] = []
        self.entered = 0
        self.left = 0

    @asynccontextmanager
    async def open(self, outgoing: Outgoing) -> AsyncIterator[Incoming]:
        self.asked.append(outgoing)
        await asyncio.sleep(0)
        if not isinstance(outgoing.body, bytes):
            async for piece in outgoing.body:
                self.uploaded.append(piece)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        self.entered += 1
        try:
            yield answer
        finally:
            self.left += 1

    async def close(self) -> None:
        """Nothing to close."""


class FakeCaller:
    """What the client got; ``hang_up`` is its end."""

    def __init__(self, *body: bytes) -> None:
        self.pieces = body
        self.heads: list[tuple[int, RawHeaders]] = []
        self.got: list[bytes] = []
        self.ended = False
        self._on_gone: Callable[[], None] | None = None
        self.watched = False

    async def body(self) -> AsyncGenerator[bytes, None]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece

    async def start(self, status: int, headers: RawHeaders) -> None:
        self.heads.append((status, headers))

    async def send(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.got.append(chunk)

    async def end(self, chunk: bytes = b"") -> None:
        self.got.append(chunk)
        self.ended = True

    def watch(self, on_gone: Callable[[], None]) -> None:
        self._on_gone = on_gone
        self.watched = True

    def unwatch(self) -> None:
        self._on_gone = None

    def hang_up(self) -> None:
        if self._on_gone is not None:
            self._on_gone()

    @property
    def bytes(self) -> bytes:
        return b"".join(self.got)


class Bench:
    """A proxy on fakes."""

    def __init__(self, *, route: str = "", ledger: str = "", defaults: str = 'meter = "usage().total"') -> None:
        text = f"""
plans = "plans"
[database]
url = "sqlite:///unused"
[ledger]
{ledger}
[upstreams.origin]
url = "http://127.0.0.1:1"
[defaults]
{defaults}
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
{route}
"""
        plans = {"pro.toml": PLAN, "free.toml": PLAN}
        self.gateway: Gateway = parse_gateway(text, "gateway.toml", plans, {})
        self.clock = FakeClock()
        self.keys = FakeKeys()
        self.ledger = FakeLedger()
        self.upstream = FakeUpstream()
        self.directory = Directory(self.keys, self.keys, self.clock)  # type: ignore[arg-type]
        self.settler = Settler(self.ledger, self.clock)
        self.pulse = Pulse(self.ledger, self.directory, lambda: self.gateway, self.clock)
        costs = Costs(None)
        self.outage = Outage(self.clock, wait_s=0.05)
        admission = Admission(
            self.directory,
            self.ledger,
            "me",
            costs,
            outage=self.outage,
            newcomers=Newcomers(self.clock),
            exhausted=Exhausted(self.clock),
        )
        self.proxy = Proxy(
            admission, self.upstream, self.settler, self.pulse, self.clock, ledger=self.ledger, costs=costs
        )

    def call(self, body: bytes, *headers: tuple[bytes, bytes], method: str = "POST", call_id: str = "call_1") -> Call:
        given = list(headers) or [(b"content-type", b"application/json")]
        if body and not any(name == b"content-length" for name, _ in headers):
            given.append((b"content-length", str(len(body)).encode()))
        return Call(
            id=call_id,
            gateway=self.gateway,
            route=self.gateway.router.routes[0],
            names={},
            method=method,
            path=b"/v1/chat/completions",
            headers=given,
            credentials=Credentials((SECRET,), b""),
            scheme="http",
            client_host="127.0.0.1",
            started_ms=self.clock.now_ms(),
            started_s=self.clock.monotonic_s(),
        )

    def answers(self, status: int = 200, *pieces: bytes | BaseException, **headers: str) -> FakeIncoming:
        """Prepare an answer of the upstream."""
        pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        answer = FakeIncoming(status, pairs)
        answer.say(*pieces)
        self.upstream.answers.append(answer)
        return answer

    async def serve(self, body: bytes, caller: FakeCaller | None = None) -> FakeCaller:
        """One call from head to end, and its settlement."""
        caller = caller or FakeCaller(body)
        await self.proxy.serve(self.call(body), caller)
        await self.settler.drain(5)
        return caller
